"""Build the parts of a run from its configuration, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, optim

from mixopt.corpus import Corpus, document_ends
from mixopt.loading import MixtureLoader
from mixopt.mixture import Mixture
from mixopt.online import MIXTURE_LOG, Driver, DriverOptions, make_estimator
from mixopt.pretraining.averaged_weights import AveragedWeights
from mixopt.pretraining.balance_choice import balance_of
from mixopt.pretraining.config import EstimatorConfig, PretrainConfig
from mixopt.pretraining.directory import METRICS
from mixopt.pretraining.document_masks import DocumentMasks, check_apart
from mixopt.pretraining.expert_watch import ExpertWatch, watch_of
from mixopt.pretraining.metrics import Meter, MetricsFile, peak_flops
from mixopt.pretraining.mixture_input import FixedMixture, Scheduled, scheduled_mixtures
from mixopt.pretraining.models import flops_per_token
from mixopt.pretraining.optimizer import make_optimizer
from mixopt.pretraining.parallel import ParallelModel
from mixopt.pretraining.ranks import Ranks
from mixopt.pretraining.run_text import RankBatches
from mixopt.pretraining.sharded_start import StartingModel, starting_model
from mixopt.pretraining.text import (
    HeldOutText,
    StreamedText,
    batches_of,
    open_for,
)
from mixopt.pretraining.training_step import TrainingStep
from mixopt.sampling import MixtureSampler


class MixtureDriver(Protocol):
    """What the loop tells of each step: an estimator's driver, or mixtures known beforehand."""

    def start(self) -> None:
        """Start, or resume."""
        ...

    def record(self, losses: Tensor, domain: Tensor, mask: Tensor | None = None) -> None:
        """Take in training losses of this rank."""
        ...

    def step(self, *, learning_rate: float) -> None:
        """Note an optimiser step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state; every rank calls it."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state."""
        ...


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a run on one rank."""

    config: PretrainConfig
    loader: RankBatches
    model: ParallelModel
    optimizer: optim.Optimizer
    step: TrainingStep
    held_out: HeldOutText
    mixture: MixtureDriver
    meter: Meter
    metrics: MetricsFile
    experts: ExpertWatch | None
    averaged: AveragedWeights | None

    @property
    def sampler(self) -> MixtureSampler:
        """The order of the samples."""
        return self.loader.sampler


@dataclass(frozen=True, eq=False)
class _Stream:
    """What a run reads, before it has a model."""

    corpus: Corpus | StreamedText
    known: Scheduled
    loader: RankBatches


def make_parts(config: PretrainConfig, out: Path, ranks: Ranks) -> Parts:
    """Put a run together; every rank calls it.

    Raises:
        MixoptError: Corpus, mixtures, model or estimator cannot be used in this run.
    """
    stream = ranks.each(lambda: _stream(config, out, ranks))
    start = starting_model(config, stream.corpus.vocab_size, out, ranks)
    masks = ranks.each(lambda: _masks(config, stream.corpus, start, ranks))
    flops = ranks.first(lambda: flops_per_token(start.module, config.training.sequence_length))
    model = ParallelModel(start.module, config, ranks, masks, held_by_first=start.held_by_first)
    optimizer = make_optimizer(model.plain, config.training)
    averaged = _averaged(model, optimizer, config)
    held_out = HeldOutText(stream.corpus, config, ranks, model)
    experts = ranks.each(lambda: watch_of(model, stream.corpus, config, ranks, out))
    balance = ranks.each(lambda: balance_of(model.plain, config, ranks, experts))
    one = config.metrics.peak_flops or peak_flops(ranks.device)
    peak = None if one is None else one * ranks.count
    return Parts(
        config=config,
        loader=stream.loader,
        model=model,
        optimizer=optimizer,
        step=TrainingStep(model, optimizer, config, ranks, experts, balance, averaged),
        held_out=held_out,
        mixture=ranks.each(lambda: _mixture(config, stream, held_out, out)),
        meter=Meter(stream.corpus.domain_names, config, balance, flops=flops, peak=peak),
        metrics=MetricsFile(out / METRICS if ranks.is_first else None),
        experts=experts,
        averaged=averaged,
    )


def _averaged(
    model: ParallelModel, optimizer: optim.Optimizer, config: PretrainConfig
) -> AveragedWeights | None:
    decay = config.training.ema_decay
    return None if decay is None else AveragedWeights(model.plain, optimizer, decay)


def _stream(config: PretrainConfig, out: Path, ranks: Ranks) -> _Stream:
    corpus = open_for(config, out)
    known = scheduled_mixtures(config, corpus)
    loader = batches_of(corpus, config, known, ranks)
    return _Stream(corpus, known, loader)


def _masks(
    config: PretrainConfig, text: Corpus | StreamedText, start: StartingModel, ranks: Ranks
) -> DocumentMasks | None:
    """Return what keeps documents of a row apart, where that is asked for; the model can do it."""
    if not config.training.mask_documents:
        return None
    if isinstance(text, StreamedText):
        ends: tuple[int, ...] = (text.tokenizer.end_of_document,)
    else:
        ends = document_ends(text)
    masks = DocumentMasks(start.module, ends)
    if ranks.is_first or not start.held_by_first:
        check_apart(start.module, config.training.sequence_length, text.vocab_size)
    return masks


def _mixture(
    config: PretrainConfig, stream: _Stream, held_out: HeldOutText, out: Path
) -> MixtureDriver:
    log = out / MIXTURE_LOG
    if config.estimator is None:
        changes = None if config.watch is None else _changes_of(stream.loader)
        return FixedMixture(stream.known, log, changes)
    return _driver(config, config.estimator, stream, held_out, log)


def _changes_of(loader: RankBatches) -> Callable[[], Mapping[int, Mixture]]:
    """Return what says the mixtures of a sampler as they are known now."""
    return lambda: {e.batch: e.mixture for e in loader.sampler.log if e.reason == "set"}


def _driver(
    config: PretrainConfig,
    chosen: EstimatorConfig,
    stream: _Stream,
    held_out: HeldOutText,
    log: Path,
) -> Driver:
    corpus = stream.corpus
    options = DriverOptions(
        steps=config.training.steps,
        tokens_per_sample=config.training.sequence_length,
        evaluations=corpus.evaluation_names,
        objective=chosen.objective or dict.fromkeys(corpus.domain_names, 1.0),
        evaluate=held_out.sums,
        natural=stream.known[0][1] if corpus.natural is None else corpus.natural,
        inventory=corpus.inventory,
        bounds=chosen.bounds,
        observe_every=chosen.observe_every,
        lead=chosen.lead,
        shadow=chosen.shadow,
        log=log,
        seed=config.seed,
    )
    estimator = make_estimator(chosen.name, chosen.options)
    return Driver(estimator, _mixed_batches(stream.loader), options)


def _mixed_batches(loader: RankBatches) -> MixtureLoader | MixtureSampler:
    """Return what a driver changes the weights of."""
    return loader if isinstance(loader, MixtureLoader) else loader.sampler
