"""Options of a decoder: its shape, and the steps of its training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mixopt.errors import ConfigError, MixoptError
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


def check(option: str, value: object, is_valid: bool, expected: str) -> None:
    """Raise unless a value is valid; `expected` states what it must be."""
    if not is_valid:
        raise ConfigError(f"{option}: {value!r} must be {expected}")


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
        set_options = {name: value for name, value in options.items() if value is not None}
        return checked_as(kind, set_options, "", ConfigError)


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
            (mixopt.sampling.learning_rate).
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
        return RateCurve(
            self.schedule,
            steps,
            self.warmup,
            self.lr_decay,
            self.lr_decay_shape,
            floor=self.lr_floor,
        )

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
