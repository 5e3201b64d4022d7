"""The YAML configuration of a pretraining run; descriptions of fields are documentation.

Checks that need the corpus are made when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from mixopt.config import (
    FILES,
    Anchor,
    Count,
    Fault,
    Positive,
    Section,
    Share,
    TrackingConfig,
    as_count,
    one_given,
    optional,
    read_sections,
    url_faults,
)
from mixopt.errors import SamplerError
from mixopt.sampling import RateCurve, RateCurveName, RateShape, Schedule
from mixopt.system import is_url

LENGTHS = ("steps", "batch", "sequence_length")  # of a schedule
_FLOOR = 0.1  # default of min_lr, relative to the peak

Real = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(as_count)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(as_count)]
Beta = Annotated[float, Field(ge=0, lt=1), BeforeValidator(as_count)]


class OriginConfig(Section):
    """The weights that a run began with."""

    checkpoint: str = Field(description="folder, or name and revision on the hub")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="over the hashes of its files")


class VocabularyConfig(Section):
    """What the ids of a run's text stand for."""

    tokenizer: str = Field(description="its name")
    ids: Positive = Field(description="how many ids it has")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="of ids and tokens")

    def __str__(self) -> str:
        """Return name, size and the start of the hash."""
        return f"{self.tokenizer!r} ({self.ids:,} ids, vocabulary {str(self.sha256)[:8]})"


class ModelConfig(Section):
    """What is trained, from random weights or from a checkpoint."""

    name: str = Field(
        "", description="decoder, a type of Hugging Face (llama, ...), or package.module:Name"
    )
    start: str | None = Field(
        None,
        alias="from",
        description="in place of name: transformers folder, mixopt pretrain, checkpoint, hub name",
    )
    optimizer: bool | None = optional(
        "with from: whether its state is taken over; where there is one, if omitted"
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="fields of its configuration; with from, over those of the checkpoint",
    )
    origin: OriginConfig | None = optional("what the run began with; written by mixopt")
    vocabulary: VocabularyConfig | None = optional("what the ids stand for; written by mixopt")

    @model_validator(mode="after")
    def _named(self) -> ModelConfig:
        if not self.name and self.start is None:
            raise ValueError("give name, or from")
        if self.optimizer is not None and self.start is None:
            raise ValueError(f"optimizer {self.optimizer} has no effect without from")
        return self


class TrainingConfig(Section):
    """Length, batches, optimizer and precision."""

    steps: Positive = Field(description="optimizer steps; each takes one global batch")
    tokens: Positive | None = optional("in place of steps, such as 50B: rounded up to whole steps")
    batch: Positive = Field(description="sequences of a step, over all ranks")
    micro_batch: Positive | None = optional("sequences of a pass on one rank; all if omitted")
    sequence_length: Positive = Field(description="tokens predicted in a sequence")
    lr: Above = Field(description="peak learning rate of AdamW")
    min_lr: Real | None = optional("where a falling learning rate ends; lr / 10 if omitted")
    warmup: Real = Field(0.02, description="steps, or below 1 a fraction of all steps")
    schedule: RateCurveName = Field("cosine", description="after warm-up; wsd: stable, then decay")
    lr_decay: Above | None = optional(
        "last steps, or fraction of all, to min_lr; 0.2 (wsd) or all after the warm-up if omitted"
    )
    lr_decay_shape: RateShape | None = optional("of a wsd's decay, or an inverse_sqrt's")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW's")
    eps: Above = Field(1e-8, description="AdamW's")
    weight_decay: Real = Field(0.1, description="on matrices and embeddings, not on vectors")
    mask_documents: bool = Field(
        False, description="whether attention is cut and positions restart where a document ends"
    )
    clip: Real = Field(1.0, description="largest gradient norm; 0 does not clip")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of matrix products; auto: bfloat16 where the hardware supports it"
    )
    compile: bool = Field(False, description="apply torch.compile, block by block")
    activation_checkpointing: bool = Field(False, description="recompute blocks in backward")
    max_skipped: Count = Field(
        10, description="maximum steps whose loss or gradient is not finite; one more ends the run"
    )

    @model_validator(mode="before")
    @classmethod
    def _steps_of_tokens(cls, values: Any) -> Any:
        """Compute `steps` from `tokens` if only these are given."""
        if not isinstance(values, dict) or values.get("tokens") is None:
            return values
        counts = [as_count(values.get(name)) for name in ("tokens", "batch", "sequence_length")]
        if not all(type(count) is int and count > 0 for count in counts):
            return {"steps": 1} | values  # the wrong field is reported on its own
        tokens, batch, length = counts
        return {"steps": _steps_for(tokens, batch * length)} | values

    @cached_property
    def rates(self) -> RateCurve:
        """The learning rate by step."""
        return RateCurve(
            self.schedule,
            self.steps,
            self.warmup,
            self.lr_decay,
            self.lr_decay_shape,
            peak=self.lr,
            floor=_FLOOR * self.lr if self.min_lr is None else self.min_lr,
        )

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.min_lr is not None and self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}")
        step_tokens = self.batch * self.sequence_length
        if self.tokens is not None and self.steps != _steps_for(self.tokens, step_tokens):
            raise ValueError(
                f"steps {self.steps:,} of {step_tokens:,} tokens are not tokens {self.tokens:,};"
                " give one of them"
            )
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide batch {self.batch}")
        try:
            self.rates.check_lengths()
        except SamplerError as error:
            raise ValueError(str(error)) from error
        return self


def _steps_for(tokens: int, step_tokens: int) -> int:
    """Return the whole steps that train on at least these tokens."""
    return -(-tokens // step_tokens)


class MixtureSource(Section):
    """A mixture: exactly one of the three."""

    anchor: Anchor | None = optional("natural or uniform")
    file: str | None = optional("a proposal.yaml, or a file of weights")
    weights: dict[str, Share] | None = optional("share of the tokens by domain")

    @model_validator(mode="after")
    def _one_source(self) -> MixtureSource:
        one_given(self, "anchor", "file", "weights")
        return self


class EstimatorConfig(Section):
    """What changes the mixture while training runs (mixopt.online)."""

    name: str = Field(description="robust, aioli, odm, or package.module:Name")
    options: dict[str, Any] = Field(default_factory=dict, description="the estimator's")
    objective: dict[str, Above] | None = optional(
        "weights of evaluation domains; training domains alike if omitted"
    )
    bounds: dict[str, tuple[Share, Share]] = Field(
        default_factory=dict, description="minimum and maximum share by domain"
    )
    observe_every: Positive = Field(10, description="steps between observations")
    shadow: bool = Field(False, description="log what it would do, and change nothing")


class HeldOutConfig(Section):
    """Losses on held-out text, always the same of each evaluation domain."""

    every: Count = Field(0, description="steps between evaluations; 0: at the end")
    tokens: Positive = Field(65_536, description="maximum for each evaluation domain")


class CheckpointConfig(Section):
    """When the state is saved, besides at the end, on SIGTERM and on Ctrl-C."""

    every: Count = Field(500, description="steps between checkpoints; 0: at the end")
    keep: Positive = Field(2, description="how many of the newest are kept")
    keep_every: Count = Field(
        0, description="steps: checkpoints of its multiples are kept for good; a multiple of every"
    )

    @model_validator(mode="after")
    def _can_be_kept(self) -> CheckpointConfig:
        if self.keep_every and (not self.every or self.keep_every % self.every):
            raise ValueError(
                f"keep_every {self.keep_every} is not a multiple of every {self.every}, the steps "
                "between checkpoints"
            )
        return self


class MetricsConfig(Section):
    """What is written to metrics.jsonl and MLflow."""

    every: Positive = Field(10, description="steps between lines")
    peak_flops: Above | None = optional("of one device, for the MFU; known for common GPUs")


class ExpertsConfig(Section):
    """How the experts of a mixture-of-experts model are counted by domain."""

    enabled: Literal["auto"] | bool = Field(
        "auto", description="whether experts are counted; auto: where the model has routers"
    )
    every: Positive | None = optional(
        "steps of a window of counts; a twentieth of the run if omitted"
    )
    adapters: list[str] = Field(
        default_factory=list, description="package.module:Name of RouterAdapters of yours"
    )


class PretrainConfig(Section):
    """One pretraining run."""

    name: str = Field("pretrain", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run")
    seed: int = Field(0, ge=0, lt=2**63, description="of initial weights and the order of samples")
    corpus: str = Field(
        description="a run, prepared corpus or its URL, or an experiment's YAML, prepared first"
    )
    model: ModelConfig
    training: TrainingConfig
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="over the ranks: a copy on each, or sharded over all"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where it is")
    mixture: MixtureSource = MixtureSource(anchor="natural")
    schedule: dict[str, Any] | str | None = optional(
        "a schedule's file or content, in place of mixture, steps, batch and sequence length"
    )
    max_epochs: Above | None = optional("how often a domain may be seen, with an estimator too")
    estimator: EstimatorConfig | None = None
    held_out: HeldOutConfig = HeldOutConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    metrics: MetricsConfig = MetricsConfig()
    experts: ExpertsConfig = ExpertsConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _with_schedule(cls, values: Any, info: ValidationInfo) -> Any:
        """Put the content of `schedule` in place of its name, and its lengths into `training`."""
        schedule = values.get("schedule") if isinstance(values, dict) else None
        if schedule is None or not (info.context or {}).get(FILES, True):
            return values
        try:
            if isinstance(schedule, str):
                plan = Schedule.from_file(schedule)
            else:
                plan = Schedule.from_content(schedule, "content")
        except SamplerError as error:
            raise ValueError(f"schedule: {error}") from error
        training = values.get("training")
        if isinstance(training, dict):
            training = {name: getattr(plan, name) for name in LENGTHS} | training
        content = plan.to_json()
        content.pop("provenance", None)
        defaults = {} if plan.max_epochs is None else {"max_epochs": plan.max_epochs}
        return defaults | values | {"training": training, "schedule": content}

    @field_validator("corpus")
    @classmethod
    def _without_secrets(cls, corpus: str) -> str:
        if is_url(corpus):
            for _, message in url_faults([((), corpus)]):
                raise ValueError(message)
        return corpus

    @cached_property
    def plan(self) -> Schedule | None:
        """The schedule of the run, where it has one."""
        if self.schedule is None:
            return None
        return Schedule.from_content(self.schedule, "schedule")

    def tokens_before(self, step: int) -> int:
        """Return the tokens of the steps before a step."""
        return step * self.training.batch * self.training.sequence_length

    @property
    def row_length(self) -> int:
        """Tokens of a row: those predicted, and the first, which is only read."""
        return self.training.sequence_length + 1

    def rows_of_pass(self, ranks: int) -> int:
        """Return how many sequences one rank takes at once."""
        rows = max(self.training.batch // ranks, 1)
        return min(self.training.micro_batch or rows, rows)


def load_pretraining(path: str | Path, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Read, override and check a configuration."""
    example = "'model:', 'training:' and 'corpus:'"
    return read_sections(path, PretrainConfig, overrides, example=example, faults=_inconsistencies)


def _inconsistencies(config: PretrainConfig) -> Iterable[Fault]:
    if config.plan is None:
        return
    if config.estimator is not None:
        yield "schedule", "an estimator plans the mixture: leave one of them out"
    if config.mixture != MixtureSource(anchor="natural"):
        yield "mixture", "the schedule has the mixtures; leave it out"
    for name in LENGTHS:
        value = getattr(config.training, name)
        planned = getattr(config.plan, name)
        if value != planned:
            yield f"training.{name}", f"{value}, and the schedule has {planned}; leave it out"
