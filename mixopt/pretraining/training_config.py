"""The sections `training`, `model` and `experts` of a pretraining's file; descriptions are docs.

What was added after the first runs has no value by default, so that a run that was begun without
it resumes with what it was begun with.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mixopt.config import Count, Positive, Section
from mixopt.errors import RoutingError, SamplerError
from mixopt.routing import Thresholds
from mixopt.sampling import RateCurve, RateCurveName, RateShape

Precision = Literal["auto", "float32", "bfloat16"]
_FLOOR = 0.1  # of the peak, where min_lr is not given


def _number(value: Any) -> Any:
    """Read `3e-4`, which YAML takes for a string, as the number that it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Real = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Beta = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_number)]


class TrainingConfig(Section):
    """Length, batches, optimizer and precision."""

    steps: Positive = Field(description="optimizer steps; each takes one global batch")
    batch: Positive = Field(description="sequences of a step, over all ranks")
    micro_batch: Positive | None = Field(
        None,
        description="sequences of one forward pass on one rank; gradients of the passes are "
        "accumulated. If omitted, or more, all that a rank has of a batch",
    )
    sequence_length: Positive = Field(description="tokens predicted in a sequence")
    lr: Above = Field(description="peak learning rate of AdamW")
    min_lr: Real | None = Field(
        None, description="where the learning rate ends that falls; lr / 10 if omitted"
    )
    warmup: Real = Field(0.02, description="steps, or below 1 a fraction of all steps")
    schedule: RateCurveName = Field(
        "cosine",
        description="after the warm-up: cosine, linear, constant, wsd (stable, then decay) or "
        "inverse_sqrt",
    )
    lr_decay: Above | None = Field(
        None,
        description="the last steps, or below 1 a fraction of all, in which the learning rate "
        "falls to min_lr; wsd: 0.2 if omitted, cosine and linear: all after the warm-up",
    )
    lr_decay_shape: RateShape | None = Field(
        None, description="of a wsd's decay, or an inverse_sqrt's: linear, cosine or sqrt"
    )
    lr_start_step: Count | None = Field(
        None,
        description="steps of the learning rate's schedule that were taken before this run",
    )
    lr_total_steps: Positive | None = Field(
        None,
        description="steps of the whole schedule of the learning rate, this run's and those before "
        "and after; if omitted, those to the end of this run",
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW's")
    eps: Above | None = Field(None, description="AdamW's; 1e-8 if omitted")
    weight_decay: Real = Field(0.1, description="on matrices and embeddings, not on vectors")
    decay_embeddings: bool | None = Field(
        None, description="whether weight_decay holds for embeddings; yes if omitted"
    )
    z_loss: Above | None = Field(
        None,
        description="adds so many times the mean square of the logarithm of the softmax's "
        "denominator to the loss, such as 1e-4",
    )
    ema_decay: Beta | None = Field(
        None,
        description="keeps an average of the weights, of which each step leaves so much; it is in "
        "checkpoints, and held_out.ema evaluates it",
    )
    mask_documents: bool | None = Field(
        None,
        description="whether documents of one row do not see each other: attention is cut and "
        "positions restart where one ends; no if omitted",
    )
    clip: Real = Field(1.0, description="largest gradient norm; 0 does not clip")
    precision: Precision = Field(
        "auto", description="of matrix products; auto: bfloat16 where the hardware supports it"
    )
    compile: bool = Field(False, description="apply torch.compile, block by block")
    activation_checkpointing: bool = Field(
        False, description="recompute blocks in the backward pass"
    )
    max_skipped: Count = Field(
        10,
        description="maximum number of skipped steps, whose loss or gradient is not finite; one "
        "more ends the run",
    )

    @cached_property
    def rates(self) -> RateCurve:
        """The learning rate by step."""
        start = self.lr_start_step or 0
        return RateCurve(
            self.schedule,
            start + self.steps if self.lr_total_steps is None else self.lr_total_steps,
            self.warmup,
            self.lr_decay,
            self.lr_decay_shape,
            start=start,
            peak=self.lr,
            floor=_FLOOR * self.lr if self.min_lr is None else self.min_lr,
        )

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.min_lr is not None and self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}")
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide batch {self.batch}")
        try:
            self.rates.check_lengths()
        except SamplerError as error:
            raise ValueError(str(error)) from error
        start, total = self.lr_start_step or 0, self.lr_total_steps
        if total is not None and start + self.steps > total:
            raise ValueError(
                f"lr_total_steps {total:,} end before the run does: it takes {self.steps:,} steps"
                f" from lr_start_step {start:,} on; give at least {start + self.steps:,}"
            )
        return self


class OriginConfig(Section):
    """The weights that a run began with."""

    checkpoint: str = Field(description="folder, or name and revision on the hub")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="over the hashes of its files")


class VocabularyConfig(Section):
    """What the ids of a run's text stand for."""

    tokenizer: str
    ids: Positive
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="of ids and tokens")


class ModelConfig(Section):
    """What is trained, from random weights or from a checkpoint."""

    name: str = Field(
        "",
        description="decoder, a model type of Hugging Face (llama, olmoe, mixtral, qwen2_moe, "
        "qwen3_moe, ...), or package.module:Name; the checkpoint's with from",
    )
    start: str | None = Field(
        None,
        alias="from",
        description="weights to start from: a folder of transformers (safetensors), the directory "
        "of a mixopt pretrain or one of its checkpoints, or a name on the hub",
    )
    optimizer: bool | None = Field(
        None,
        description="with from: whether the optimizer's state is taken over; where there is one, "
        "if omitted",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="fields of its configuration; vocabulary and positions are the corpus's and "
        "training.sequence_length if omitted; with from, over those of the checkpoint",
    )
    origin: OriginConfig | None = Field(
        None, description="what the run began with; written by mixopt"
    )
    vocabulary: VocabularyConfig | None = Field(
        None, description="what the ids of the text stand for; written by mixopt"
    )

    @model_validator(mode="after")
    def _named(self) -> ModelConfig:
        if not self.name and self.start is None:
            raise ValueError("give name, or from")
        if self.optimizer is not None and self.start is None:
            raise ValueError(f"optimizer {self.optimizer} has no effect without from")
        return self


def _are_thresholds(values: dict[str, float]) -> dict[str, float]:
    try:
        Thresholds().with_values(values, "thresholds")
    except RoutingError as error:
        raise ValueError(str(error).removeprefix("thresholds: ")) from error
    return values


def _are_numbers(values: Any) -> Any:
    """Refuse truths, which would be read as 0 and 1."""
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, bool):
            raise ValueError(f"{name}: {value} is not a number")
    return values


def _word(value: Any) -> Any:
    """Read `off`, which YAML takes for false, as the word that it is."""
    return "off" if value is False else value


Balancing = Annotated[Literal["auto", "bias", "auxiliary", "off"], BeforeValidator(_word)]
_Thresholds = Annotated[
    dict[str, float], AfterValidator(_are_thresholds), BeforeValidator(_are_numbers)
]
Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class ExpertsConfig(Section):
    """What a mixture-of-experts model is balanced by, and counts of what it gives to which expert.

    Counts change no result.
    """

    enabled: Literal["auto"] | bool = Field(
        "auto",
        description="auto: where the model has routers; true: an error where it has none; false",
    )
    every: Positive | None = Field(
        None, description="steps of a window of counts on disk; a twentieth of the run if omitted"
    )
    thresholds: _Thresholds | None = Field(
        None,
        description="thresholds of diagnoses, such as {busiest: 3, dead: 0.1}; "
        "docs/experts/diagnoses.md has the names",
    )
    ranks: Positive | None = Field(
        None,
        description="ranks of expert parallelism whose worst load is told; up to 8 that divide the "
        "experts if omitted",
    )
    balance: Balancing | None = Field(
        None,
        description="how the load of experts is balanced: bias (DeepSeek-V3's rule), auxiliary "
        "(a loss that the model returns), off; auto, as the model's family does, if "
        "omitted",
    )
    bias_rate: Rate | None = Field(
        None,
        description="how much a step moves each bias; if omitted, at most 0.02, in proportion to "
        "how uneven the load is",
    )
    adapters: list[str] | None = Field(
        None,
        description="how to read routers that mixopt does not know: package.module:Name of a "
        "RouterAdapter of yours, or of a list of some",
    )
