"""Named sizes of the decoder; any field can be overridden.

`1m` and `60m` have the shapes of RegMix's TinyLlama 1M and 60M (sail-sg/regmix, MIT,
`lit_gpt/config.py`): layers, width, heads and feed-forward width; their learning rate, warm-up,
decay and clipping are also RegMix's. Two things differ: the vocabulary is the corpus's, and a step
has far fewer sequences (RegMix: 512), since with a million tokens a proxy learns more from many
small steps than from few large ones. `tiny` is our own size, for bytes and one CPU core: a million
tokens in about ten seconds. With half a million tokens of six domains its mean held-out loss was
2.15 nats per byte with 4 sequences of 128 per step and 2.21 with 8; a third layer improved it by
0.03 and took 1.4 times the time, a width of 96 or 128 did not improve it this early.

`moe-tiny` and `moe-1m` are `tiny` and `1m` with eight experts, two per token, which together have
the weights of the dense feed-forward.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mixopt.errors import ConfigError, MixoptError, did_you_mean
from mixopt.sampling import RateCurve, RateCurveName, RateShape
from mixopt.system import checked_as

Precision = Literal["auto", "float32", "bfloat16"]
Flag = Annotated[bool, Field(strict=True)]
Compile = Literal["auto", True, False]
Whole = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True, ge=0)]
Above = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Beta = Annotated[float, Field(strict=True, ge=0, lt=1)]


def check(option: str, value: object, good: bool, want: str) -> None:
    """Raise unless a value is good; `want` states what it must be."""
    if not good:
        raise ConfigError(f"{option}: {value!r} must be {want}")


@contextmanager
def option_errors() -> Iterator[None]:
    """Name the section of the configuration in errors of options: `proxy.options.lr: ...`."""
    try:
        yield
    except MixoptError as error:
        raise ConfigError(f"proxy.options.{str(error).removeprefix(': ')}") from error


def built(kind: Any, options: Mapping[str, object]) -> Any:
    """Return a dataclass built from the options that are not None, with each field checked."""
    with option_errors():
        given = {name: value for name, value in options.items() if value is not None}
        return checked_as(kind, given, "", ConfigError)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StepOptions:
    """The steps of a trial.

    Attributes:
        sequence_length: Predicted tokens of a sequence.
        batch: Sequences of one member and step.
        lr: Learning rate of AdamW before its decay.
        warmup: Steps of linear warm-up; below 1, a fraction of all steps.
        weight_decay: Weight decay of matrices; norms have none.
        betas: Betas of AdamW.
        clip: Maximum gradient norm of a member; 0: no clipping.
        precision: Precision of matrix products.
        compile: Whether to compile a step; `auto`: if that saves time.
        mask_documents: Whether attention is masked between documents of a sequence.
    """

    sequence_length: Whole
    batch: Whole
    lr: Above
    warmup: Number = 0.0
    weight_decay: Number = 0.1
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    clip: Number = 1.0
    precision: Precision = "auto"
    compile: Compile = "auto"
    mask_documents: Flag = False

    @property
    def step_tokens(self) -> int:
        """Tokens of one member and step."""
        return self.sequence_length * self.batch


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DecoderSize(StepOptions):
    """Shape of a decoder, and training options.

    Attributes:
        layers: Blocks of attention and feed-forward.
        width: Width of the residual stream.
        heads: Attention heads; width / heads is even.
        ff: Inner width of the SwiGLU feed-forward.
        tied: Whether the head shares the embedding's weights.
        schedule: Shape after warm-up: `constant`, `cosine`, `linear`, `wsd` or `inverse_sqrt`
            (mixopt.sampling.rate_curve).
        experts: Routed experts of a block, in place of the feed-forward; 0: dense.
        top_k: Experts of a token.
        expert_ff: Inner width of one expert's SwiGLU; a multiple of 8, for grouped products.
        balance_weight: Weight of a loss that is 1 at even load; 0: no balancing.
        lr_floor: Learning rate at the end of a decay, as a share of the peak.
        lr_decay: Steps of the final decay to the floor; below 1, a fraction of all steps.
        lr_decay_shape: Shape of the final decay: `linear`, `cosine` or `sqrt`.
    """

    layers: Whole
    width: Whole
    heads: Whole
    ff: Whole
    tied: Flag
    schedule: RateCurveName
    experts: Annotated[int, Field(strict=True, ge=0)] = 0
    top_k: Whole = 2
    expert_ff: Whole = 8
    balance_weight: Number = 0.01
    lr_floor: Share = 0.1
    lr_decay: Above | None = None
    lr_decay_shape: RateShape | None = None

    def __post_init__(self) -> None:
        """Raise on invalid combinations of fields."""
        even = self.width % (2 * self.heads) == 0
        check("heads", self.heads, even, f"a divisor of width / 2 = {self.width / 2:g}")
        if self.experts:
            check("experts", self.experts, self.experts >= 2, "at least 2")
            fits = 2 <= self.top_k <= self.experts
            check("top_k", self.top_k, fits, f"from 2 to {self.experts}, the number of experts")
            check("expert_ff", self.expert_ff, self.expert_ff % 8 == 0, "a multiple of 8")
            check("width", self.width, self.width % 8 == 0, "a multiple of 8 with experts")
        self.rates(1)

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.heads

    def rates(self, steps: int) -> RateCurve:
        """Return the learning rate by step, as a share of the peak."""
        decay, shape = self.lr_decay, self.lr_decay_shape
        return RateCurve(self.schedule, steps, self.warmup, decay, shape, floor=self.lr_floor)

    def check_steps(self, steps: int) -> None:
        """Check that warm-up and decay fit into a trial."""
        with option_errors():
            self.rates(steps).check_lengths()

    def parameters(self, vocab_size: int) -> int:
        """Number of weights of one member."""
        tables = 1 if self.tied else 2
        return self.trunk(self.experts) + tables * vocab_size * self.width

    def step_flops(self, vocab_size: int) -> float:
        """Matrix-product operations of a training step of one member: 6 per weight and token."""
        weights = self.trunk(self.top_k) + vocab_size * self.width
        attention = self.layers * self.sequence_length * self.width
        return 6.0 * (weights + attention) * self.step_tokens

    def trunk(self, routed: int) -> int:
        """Number of weights outside embedding and head, with `routed` experts in each block."""
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
OPTIONS = tuple(field.name for field in fields(DecoderSize))
OF_EXPERTS = ("experts", "top_k", "expert_ff", "balance_weight")
OF_SHAPE = ("layers", "width", "heads", "ff", "tied", *OF_EXPERTS)


def make_size(name: str, **overrides: object) -> DecoderSize:
    """Return a named size with the fields of `overrides` that are not None."""
    if name not in SIZES:
        raise ConfigError(f"proxy.options.size: {name!r} is not a size{did_you_mean(name, SIZES)}")
    base, changed = SIZES[name], {n: value for n, value in overrides.items() if value is not None}
    size: DecoderSize = built(DecoderSize, {n: getattr(base, n) for n in OPTIONS} | changed)
    if changed.get("experts") == 0:
        raise ConfigError("proxy.options.experts: 0 must be at least 2")
    unused, why = list(OF_EXPERTS), "without experts: set experts, or size: moe-tiny"
    if size.experts:
        unused, why = ["ff"], "with experts: set expert_ff"
    for option in unused:
        if option in changed:
            value = changed[option]
            raise ConfigError(f"proxy.options.{option}: {value!r} has no effect {why}")
    if size.experts and not base.experts and "expert_ff" not in changed:
        # A token's experts have as many weights as the dense feed-forward.
        return replace(size, expert_ff=max(8, base.ff // size.top_k // 8 * 8))
    return size
