"""Named sizes of the decoder, any field of which can be overridden.

`1m` and `60m` have the shapes of RegMix's TinyLlama 1M and 60M (sail-sg/regmix, MIT,
`lit_gpt/config.py`): layers, width, heads and feed-forward width; their learning rate,
warm-up, decay and clipping are RegMix's too. Two things differ: the vocabulary is the
corpus's, and a step has far fewer sequences (RegMix: 512), since a proxy that sees a
million tokens learns more from many small steps than from few large ones. `tiny` is ours,
for bytes and a core of a CPU: a million tokens in about ten seconds. With half a million
tokens of six domains its mean held-out loss was 2.15 nats per byte with 4 sequences of 128 a
step and 2.21 with 8; a third layer gained 0.03 and cost 1.4 times the time, a width of 96 or
128 gained nothing so early.

`moe-tiny` and `moe-1m` are `tiny` and `1m` with eight experts, of which a token meets two that have
together the weights of the dense feed-forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from mixopt.errors import ConfigError, SamplerError, did_you_mean
from mixopt.sampling import RateCurve, RateCurveName, RateShape

Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["auto"] | bool


def checked_options(options: Mapping[str, object], kinds: Mapping[str, type]) -> dict[str, object]:
    """Return the options that are given, each as its kind; None is as if it were left out."""
    for option in options:
        if option not in kinds:
            near = did_you_mean(option, kinds)
            raise ConfigError(f"proxy.options.{option}: unknown option{near}")
    given = {name: value for name, value in options.items() if value is not None}
    return {name: _of_kind(name, value, kinds[name]) for name, value in given.items()}


def check(option: str, value: object, good: bool, want: str) -> None:
    """Refuse a value unless it is good.

    Raises:
        ConfigError: It is not; the message says what the option must be.
    """
    if not good:
        raise ConfigError(f"proxy.options.{option}: {value!r} must be {want}")


def check_least(options: object, least: int, *names: str) -> None:
    """Refuse numbers below the least that they may be."""
    for name in names:
        check(name, getattr(options, name), getattr(options, name) >= least, f"at least {least}")


def _of_kind(option: str, value: object, kind: type) -> object:
    """Return a value of an option as its kind: whole numbers as floats, lists as pairs."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, list | tuple) and len(value) == 2:
        return tuple(_of_kind(option, entry, float) for entry in value)
    check(option, value, type(value) is kind, f"a {kind.__name__}")
    return value


@dataclass(frozen=True)
class DecoderSize:
    """Shape of a decoder, how much of it a step sees, and how it is trained.

    Attributes:
        layers: Blocks of attention and feed-forward.
        width: Residual stream.
        heads: Attention heads; width / heads is even.
        ff: Inner width of the SwiGLU feed-forward.
        sequence_length: Tokens predicted in a row.
        batch: Sequences of one member and step.
        tied: Whether the head is the embedding.
        lr: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up; below 1, a fraction of all steps.
        schedule: After warm-up: `constant`, `cosine`, `linear`, `wsd` or `inverse_sqrt`
            (mixopt.sampling.rate_curve).
        weight_decay: On matrices; never on norms.
        betas: AdamW's.
        clip: Largest gradient norm of a member; 0 does not clip.
        experts: Routed experts of a block, in place of the feed-forward; 0 for a dense size.
        top_k: Experts of a token.
        expert_ff: Inner width of one expert's SwiGLU; a multiple of 8, as grouped products want.
        balance_weight: Of a loss that is 1 where the load is even; 0 balances nothing.
        lr_floor: Where a decay ends, as a share of the peak.
        lr_decay: Steps of the last part, in which the rate goes to the floor; below 1, a fraction
            of all steps.
        lr_decay_shape: How it goes there: `linear`, `cosine` or `sqrt`.
    """

    layers: int
    width: int
    heads: int
    ff: int
    sequence_length: int
    batch: int
    tied: bool
    lr: float
    warmup: float
    schedule: RateCurveName
    weight_decay: float
    betas: tuple[float, float]
    clip: float
    experts: int = 0
    top_k: int = 2
    expert_ff: int = 8
    balance_weight: float = 0.01
    lr_floor: float = 0.1
    lr_decay: float | None = None
    lr_decay_shape: RateShape | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        check_least(self, 1, "layers", "width", "heads", "ff", "sequence_length", "batch")
        check_least(self, 0, "warmup", "weight_decay", "clip", "balance_weight")
        check("lr", self.lr, self.lr > 0, "above 0")
        check("lr_decay", self.lr_decay, self.lr_decay is None or self.lr_decay > 0, "above 0")
        even = self.width % (2 * self.heads) == 0
        check("heads", self.heads, even, f"a divisor of width / 2 = {self.width / 2:g}")
        check("betas", self.betas, all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        check("lr_floor", self.lr_floor, 0 <= self.lr_floor <= 1, "from 0 to 1")
        if self.experts:
            check("experts", self.experts, self.experts >= 2, "at least 2")
            fits = 2 <= self.top_k <= self.experts
            check("top_k", self.top_k, fits, f"from 2 to {self.experts}, the number of experts")
            whole = self.expert_ff >= 8 and self.expert_ff % 8 == 0
            check("expert_ff", self.expert_ff, whole, "a multiple of 8")
            check("width", self.width, self.width % 8 == 0, "a multiple of 8 with experts")
        self.rates(1)

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    @property
    def step_tokens(self) -> int:
        """Tokens of one member and step."""
        return self.sequence_length * self.batch

    def rates(self, steps: int) -> RateCurve:
        """Return the learning rate by step, as a share of the peak."""
        try:
            return RateCurve(
                self.schedule,
                steps,
                self.warmup,
                self.lr_decay,
                self.lr_decay_shape,
                floor=self.lr_floor,
            )
        except SamplerError as error:
            raise ConfigError(f"proxy.options.{error}") from error

    def check_steps(self, steps: int) -> None:
        """Check that warm-up and decay fit into a trial."""
        try:
            self.rates(steps).check_lengths()
        except SamplerError as error:
            raise ConfigError(f"proxy.options.{error}") from error

    def trunk_parameters(self) -> int:
        """Weights outside the embedding and the head."""
        return self._trunk(self.experts)

    def active_parameters(self) -> int:
        """Weights outside the embedding and the head that a token meets."""
        return self._trunk(self.top_k)

    def parameters(self, vocab_size: int) -> int:
        """All weights of one member."""
        tables = 1 if self.tied else 2
        return self.trunk_parameters() + tables * vocab_size * self.width

    def step_flops(self, vocab_size: int) -> float:
        """Matrix-product operations of a training step of one member: 6 a weight and token."""
        weights = self.active_parameters() + vocab_size * self.width
        attention = self.layers * self.sequence_length * self.width
        return 6.0 * (weights + attention) * self.step_tokens

    def _trunk(self, routed: int) -> int:
        inner = self.width * self.ff
        if self.experts:
            inner = self.width * self.expert_ff * routed
        block = 4 * self.width**2 + 3 * inner + self.width * self.experts + 2 * self.width
        return self.layers * block + self.width


_REGMIX = DecoderSize(
    layers=2,
    width=256,
    heads=8,
    ff=512,
    sequence_length=2048,
    batch=8,
    tied=False,
    lr=4e-4,
    warmup=100,
    schedule="constant",
    weight_decay=0.1,
    betas=(0.9, 0.95),
    clip=1.0,
)

_TINY = replace(
    _REGMIX,
    width=64,
    heads=2,
    ff=192,
    sequence_length=128,
    batch=4,
    tied=True,
    lr=3.5e-3,
    warmup=0.05,
    schedule="cosine",
)

SIZES: dict[str, DecoderSize] = {
    "tiny": _TINY,
    "moe-tiny": replace(_TINY, experts=8, expert_ff=96),
    "1m": _REGMIX,
    "moe-1m": replace(_REGMIX, experts=8, expert_ff=256),
    "60m": replace(_REGMIX, layers=10, width=768, ff=1536),
}
KINDS = {field.name: type(getattr(_REGMIX, field.name)) for field in fields(DecoderSize)}
KINDS |= {"lr_decay": float, "lr_decay_shape": str}  # None in named sizes
OF_EXPERTS = ("experts", "top_k", "expert_ff", "balance_weight")
OF_SHAPE = ("layers", "width", "heads", "ff", "tied", *OF_EXPERTS)


def check_choices(precision: Precision, compile: Compile, mask_documents: bool = False) -> None:
    """Refuse a value that an option of training does not have."""
    known = {
        "precision": (precision, ("auto", "float32", "bfloat16")),
        "compile": (compile, ("auto", True, False)),
        "mask_documents": (mask_documents, (True, False)),
    }
    for option, (value, values) in known.items():
        if value not in values:
            names = ", ".join(str(entry).lower() for entry in values)
            raise ConfigError(f"proxy.options.{option}: {value!r} must be one of {names}")


def make_size(name: str, **overrides: object) -> DecoderSize:
    """Return a named size with the fields of `overrides` that are not None."""
    if name not in SIZES:
        raise ConfigError(f"proxy.options.size: {name!r} is not a size{did_you_mean(name, SIZES)}")
    base, given = SIZES[name], checked_options(overrides, KINDS)
    experts = given.get("experts", base.experts)
    if "experts" in given:
        check("experts", experts, experts != 0, "at least 2")
    for option in OF_EXPERTS if not experts else ():
        if option in given:
            raise ConfigError(
                f"proxy.options.{option}: {given[option]!r} has no effect without experts: give"
                " experts, or size: moe-tiny"
            )
    if experts and "ff" in given:
        raise ConfigError(
            f"proxy.options.ff: {given['ff']} has no effect with experts: give expert_ff"
        )
    if experts and not base.experts:  # as many products as the feed-forward has
        top_k = given.get("top_k", base.top_k)
        assert isinstance(top_k, int), "checked"
        given.setdefault("expert_ff", max(8, base.ff // max(top_k, 1) // 8 * 8))
    return replace(base, **given)  # type: ignore[arg-type]
