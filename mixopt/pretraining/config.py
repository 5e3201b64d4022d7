"""The YAML file of a pretraining run, as checked values.

A field's description is its documentation. `load_pretraining` reads the file with line numbers
(mixopt.config.yaml_sections); what only the corpus can tell is checked when that is open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mixopt.config import (
    FILES,
    WHERE,
    Anchor,
    CorpusConfig,
    Count,
    Location,
    Positive,
    Section,
    Share,
    SourceConfig,
    TrackingConfig,
    absent_texts,
    dump_sections,
    read_sections,
    source_urls,
    unusable_names,
    url_faults,
)
from mixopt.errors import SamplerError, did_you_mean
from mixopt.pretraining.training_config import Above, ExpertsConfig, ModelConfig, TrainingConfig
from mixopt.sampling import Schedule
from mixopt.system import is_url

Parallel = Literal["none", "ddp", "fsdp", "hsdp"]
_LENGTHS = ("steps", "batch", "sequence_length")  # of a schedule's file
_WHERE_STAGED = "the schedule of the run"


class MixtureSource(Section):
    """A mixture: exactly one of the three."""

    anchor: Anchor | None = Field(None, description="natural or uniform")
    file: str | None = Field(None, description="a proposal.yaml, or a file of weights")
    weights: dict[str, Share] | None = Field(None, description="share of the tokens by domain")

    @model_validator(mode="after")
    def _one_source(self) -> MixtureSource:
        given = [n for n in ("anchor", "file", "weights") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of anchor, file, weights; got {given or 'none'}")
        return self

    @property
    def why(self) -> str:
        """What the mixture is from, for the mixture log."""
        return self.anchor or self.file or "weights"


class ScheduledMixture(MixtureSource):
    """A mixture that is known beforehand, and when it begins to hold."""

    step: Positive = Field(description="after so many steps: the number of its first batch")


class EstimatorConfig(Section):
    """What changes the mixture while training runs (mixopt.online)."""

    name: str = Field(description="stratified, aioli, odm, ado, ..., or package.module:Name")
    options: dict[str, Any] = Field(default_factory=dict, description="the estimator's")
    objective: dict[str, Above] | None = Field(
        None,
        description="weights of evaluation domains in the objective; the training domains, "
        "equally, if omitted",
    )
    bounds: dict[str, tuple[Share, Share]] = Field(
        default_factory=dict, description="minimum and maximum share by domain"
    )
    observe_every: Positive = Field(10, description="steps between observations")
    lead: Positive = Field(
        1, description="batches between a decision and the first batch it applies to"
    )
    shadow: bool = Field(False, description="log what it would do, and change nothing")


class HeldOutConfig(Section):
    """Losses on held-out text, always the same of each evaluation domain."""

    every: Count = Field(0, description="steps between evaluations; 0: at the end")
    tokens: Positive = Field(65_536, description="maximum for each evaluation domain")
    ema: bool | None = Field(
        None,
        description="of the averaged weights (training.ema_decay); an estimator sees the others",
    )


class CheckpointConfig(Section):
    """When the state is saved, besides at the end, on SIGTERM and on Ctrl-C."""

    every: Count = Field(500, description="steps between checkpoints; 0: at the end")
    keep: Positive = Field(2, description="how many of the newest are kept")
    keep_every: Count = Field(
        0,
        description="steps: checkpoints of multiples of it are kept for good, besides the newest; "
        "itself a multiple of every",
    )
    asynchronous: bool = Field(
        True,
        description="train on while a thread writes; takes main memory for a copy of what a rank "
        "writes",
    )

    @model_validator(mode="after")
    def _can_be_kept(self) -> CheckpointConfig:
        if self.keep_every and (not self.every or self.keep_every % self.every):
            raise ValueError(
                f"keep_every {self.keep_every} is not a multiple of every {self.every}, the steps "
                "between checkpoints"
            )
        return self


class StreamConfig(Section):
    """Domains that are read, tokenised and packed while the run trains."""

    root: str | None = Field(
        None, description="folder of relative data_files and validation; the working directory"
    )
    domains: dict[str, SourceConfig] = Field(description="training domains by name", min_length=1)
    tokenizer: str = Field("bytes", description="bytes, or a Hugging Face name or folder")
    max_validation_bytes: Positive = Field(
        1_000_000,
        description="the first documents of each domain, or its `validation` files, up to so much"
        " text are held out",
    )
    buffer: Positive = Field(
        1_000, description="documents of a domain that are packed and shuffled together"
    )
    on_bad_document: Literal["error", "skip"] = Field(
        "error", description="what to do with invalid UTF-8 or a broken line"
    )

    @field_validator("tokenizer")
    @classmethod
    def _needs_no_training(cls, name: str) -> str:
        if name.startswith("bpe:"):
            raise ValueError(
                f"{name} is learned from text that is read beforehand: give bytes, or a tokenizer"
                " by name or folder, such as the corpus folder of a run with this tokenizer"
            )
        return name

    @field_validator("domains")
    @classmethod
    def _is_text(cls, domains: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name, source in domains.items():
            if source.is_tokens:
                raise ValueError(
                    f"{name}: format: {source.format} is tokens, and a stream reads text; give it"
                    " under corpus.domains, or import it with mixopt tokens import"
                )
        return domains

    def sources(self) -> dict[str, SourceConfig]:
        """Return the sources by domain: files under `root`, and nothing copied to disk."""
        streamed = {"streaming": True}
        return {
            name: source.under(self.root).model_copy(update=streamed)
            for name, source in self.domains.items()
        }

    def tokens(self) -> dict[str, int] | None:
        """Return the tokens of each domain; None where one is not known."""
        known = {name: s.tokens for name, s in self.domains.items() if s.tokens is not None}
        return known if len(known) == len(self.domains) else None

    def as_corpus(self) -> CorpusConfig:
        """Return what reading held-out text needs to know."""
        return CorpusConfig(
            domains=self.domains,
            tokenizer=self.tokenizer,
            max_validation_bytes=self.max_validation_bytes,
            on_bad_document=self.on_bad_document,
        )


class MetricsConfig(Section):
    """What is written to metrics.jsonl and MLflow."""

    every: Positive = Field(10, description="steps between lines")
    peak_flops: Above | None = Field(
        None, description="of one device, for the MFU; known for common GPUs"
    )


class PretrainConfig(Section):
    """One pretraining run."""

    name: str = Field("pretrain", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**63, description="of initial weights and the order of samples")
    corpus: CorpusConfig | None = Field(None, description="what to prepare, as in an experiment")
    evaluation: dict[str, SourceConfig] = Field(
        default_factory=dict, description="with corpus or stream: targets that are not trained on"
    )
    prepared_corpus: str | None = Field(
        None, description="folder or URL of what `mixopt prepare` wrote, instead of corpus"
    )
    stream: StreamConfig | None = Field(
        None, description="what to read while training, instead of corpus"
    )
    model: ModelConfig
    training: TrainingConfig
    parallel: Parallel = Field(
        "ddp",
        description="over the ranks of torchrun: ddp, fsdp, or hsdp: sharded over shard_degree of "
        "them, with a copy for each so many",
    )
    shard_degree: Positive | None = Field(
        None,
        description="with hsdp: neighbouring ranks that share one copy of the weights; those of a "
        "node if omitted",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixture: MixtureSource = MixtureSource(anchor="natural")
    schedule: list[ScheduledMixture] = Field(
        default_factory=list,
        description="later mixtures; or the name of a schedule file with all mixtures, steps, "
        "batch and sequence length",
    )
    staged: dict[str, Any] | None = Field(
        None, description="the full content of a schedule file; written by mixopt"
    )
    max_epochs: Above | None = Field(
        None,
        description="how often a domain may be seen; an estimator's mixture keeps to it too",
    )
    estimator: EstimatorConfig | None = None
    map_domains: dict[str, str | None] | None = Field(
        None,
        description="to resume with another corpus: names in the checkpoint to names here, or to "
        "null for a removed domain; {} if no name changes",
    )
    held_out: HeldOutConfig = HeldOutConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    metrics: MetricsConfig = MetricsConfig()
    experts: ExpertsConfig = ExpertsConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _with_schedule(cls, values: Any, info: ValidationInfo) -> Any:
        """Copy the file that `schedule` names into `staged`, so that a run depends on no file."""
        if not isinstance(values, dict) or not isinstance(values.get("schedule"), str):
            return values
        if not (info.context or {}).get(FILES, True):
            return values
        try:
            plan = Schedule.from_file(values["schedule"])
        except SamplerError as error:
            raise ValueError(f"schedule: {error}") from error
        training = values.get("training")
        if isinstance(training, dict):
            training = {name: getattr(plan, name) for name in _LENGTHS} | training
        staged = {n: v for n, v in plan.to_json().items() if n != "provenance"}
        limit = {} if plan.max_epochs is None else {"max_epochs": plan.max_epochs}
        return limit | values | {"training": training, "schedule": [], "staged": staged}

    @field_validator("staged")
    @classmethod
    def _is_schedule(cls, staged: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            if staged is not None:
                Schedule.from_content(staged, _WHERE_STAGED)
        except SamplerError as error:
            raise ValueError(str(error)) from error
        return staged

    @cached_property
    def plan(self) -> Schedule | None:
        """The schedule of the run, where it has one from a file."""
        return None if self.staged is None else Schedule.from_content(self.staged, _WHERE_STAGED)

    def tokens_before(self, step: int) -> int:
        """Return the tokens of the steps before a step."""
        return step * self.training.batch * self.training.sequence_length

    @property
    def row_length(self) -> int:
        """Tokens of a row: those predicted, and the first, which is only read."""
        return self.training.sequence_length + 1

    @property
    def corpus_fingerprint(self) -> str:
        """What a corpus prepared for this run is called: a hash of what it is made from."""
        content = dump_sections(self)
        made_from = {name: content.get(name) for name in ("seed", "corpus", "evaluation")}
        made_from |= {"stream": content["stream"]} if self.stream else {}
        text = "mixopt-pretrain/1" + json.dumps(made_from, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def rows_of_pass(self, ranks: int) -> int:
        """Return how many sequences one rank takes at once."""
        return min(self.training.micro_batch or self.training.batch, self.training.batch // ranks)


def load_pretraining(path: str | Path, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Read, override and check a configuration."""
    example = "'model:', 'training:' and 'corpus:'"
    return read_sections(path, PretrainConfig, overrides, example=example, faults=_inconsistencies)


def _inconsistencies(config: PretrainConfig) -> Iterable[tuple[Location, str]]:
    texts = ("corpus", "prepared_corpus", "stream")
    given = [name for name in texts if getattr(config, name) is not None]
    if len(given) != 1:
        found = " and ".join(repr(name) for name in given) or "none"
        yield (given[-1] if given else "corpus",), f"give one of {', '.join(texts)}; got {found}"
    if config.prepared_corpus is not None and config.evaluation:
        yield ("evaluation",), "goes with 'corpus'; a prepared corpus has its own targets"
    if config.corpus is not None and config.corpus.prepared is not None:
        yield ("corpus", "prepared"), "belongs to an experiment; here it is prepared_corpus"
    if is_url(config.prepared_corpus):
        place: Location = ("prepared_corpus",)
        yield from url_faults([(place, str(config.prepared_corpus))])
    for section, text in (("corpus", config.corpus), ("stream", config.stream)):
        if text is not None:
            yield from unusable_names(list(text.domains), list(config.evaluation), section)
            yield from _unknown_names(config, list(text.domains))
            places: dict[Location, Mapping[str, SourceConfig]] = {
                (section, "domains"): text.domains
            }
            yield from ((location, WHERE) for location in absent_texts(places))
            yield from url_faults(source_urls(places))
    yield from url_faults(source_urls({("evaluation",): config.evaluation}))
    texts_of_targets = absent_texts({("evaluation",): config.evaluation})
    yield from ((location, WHERE) for location in texts_of_targets)
    yield from _sizes_that_count_for_nothing(config)
    if config.shard_degree is not None and config.parallel != "hsdp":
        yield ("shard_degree",), f"belongs to parallel: hsdp, and it is {config.parallel}"
    if config.stream is not None:
        yield from _of_stream(config, config.stream)
    yield from _schedule(config)
    if config.held_out.ema and config.training.ema_decay is None:
        yield ("held_out", "ema"), "there are no averaged weights: give training.ema_decay"


def _sizes_that_count_for_nothing(config: PretrainConfig) -> Iterable[tuple[Location, str]]:
    """Find sizes of whole domains, which an experiment has and a pretraining run does not use."""
    unused = "a pretraining run counts what it prepares; leave it out"
    if config.corpus is not None and config.corpus.inventory is not None:
        yield ("corpus", "inventory"), unused
    sections: list[tuple[Location, Mapping[str, SourceConfig], str, tuple[str, ...]]] = [
        (("evaluation",), config.evaluation, "a target is not trained on", ("tokens", "bytes"))
    ]
    if config.corpus is not None:
        sections.append((("corpus", "domains"), config.corpus.domains, unused, ("tokens", "bytes")))
    if config.stream is not None:
        hint = "give tokens instead of bytes"
        sections.append((("stream", "domains"), config.stream.domains, hint, ("bytes",)))
    for place, sources, message, fields in sections:
        for name, source in sources.items():
            for field in fields:
                if getattr(source, field) is not None:
                    yield (*place, name, field), message


def _of_stream(config: PretrainConfig, stream: StreamConfig) -> Iterable[tuple[Location, str]]:
    """Find what needs to know how much text there is, or to resume with other domains."""
    if stream.tokens() is None:
        unknown = next(name for name, source in stream.domains.items() if source.tokens is None)
        hint = (
            "is not known for a stream: give stream.domains.*.tokens (now missing of "
            f"{unknown!r}), weights, or anchor: uniform"
        )
        places: list[tuple[Location, MixtureSource]] = [
            (("mixture", "anchor"), config.mixture),
            *((("schedule", k, "anchor"), entry) for k, entry in enumerate(config.schedule)),
        ]
        for location, source in places:
            if source.anchor == "natural":
                yield location, f"natural {hint}"
        if config.estimator is not None and config.estimator.name == "natural":
            yield ("estimator", "name"), f"natural {hint}"
    if config.max_epochs is not None:
        yield ("max_epochs",), "a stream repeats its text without a limit: leave it out"
    if config.map_domains is not None:
        yield ("map_domains",), "a stream resumes only with the same domains: use another --out"


def _unknown_names(config: PretrainConfig, domains: list[str]) -> Iterable[tuple[Location, str]]:
    estimator = config.estimator
    given: list[tuple[Location, Iterable[str]]] = [
        (("mixture", "weights"), config.mixture.weights or ()),
        *((("schedule", k, "weights"), s.weights or ()) for k, s in enumerate(config.schedule)),
        (("estimator", "bounds"), estimator.bounds if estimator else ()),
    ]
    known = {location: domains for location, _ in given}
    objective = (estimator.objective if estimator else None) or ()
    given.append((("estimator", "objective"), objective))
    known[("estimator", "objective")] = domains + list(config.evaluation)
    for location, names in given:
        for name in names:
            if name not in known[location]:
                near = did_you_mean(name, known[location])
                yield (*location, name), f"unknown domain {name!r}{near}"


def _schedule(config: PretrainConfig) -> Iterable[tuple[Location, str]]:
    if config.estimator is not None and (config.schedule or config.plan):
        yield ("schedule",), "an estimator plans the mixture: leave one of them out"
    if config.plan is not None:
        if config.mixture != MixtureSource(anchor="natural"):
            yield ("mixture",), "the schedule has the mixtures; leave it out"
        for name in _LENGTHS:
            given, planned = getattr(config.training, name), getattr(config.plan, name)
            if given != planned:
                ends = name == "steps" and given > planned
                what = f"ends before, after {planned}" if ends else f"has {planned}"
                yield ("training", name), f"{given}, and the schedule {what}; leave it out"
    before = 0
    for k, entry in enumerate(config.schedule):
        if entry.step <= before:
            yield ("schedule", k, "step"), f"{entry.step} is not after {before}, the one before it"
        if entry.step >= config.training.steps:
            message = f"{entry.step} is not before the end, training.steps {config.training.steps}"
            yield ("schedule", k, "step"), message
        before = entry.step
