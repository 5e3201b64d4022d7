"""The mixtures of a run as its file says them, and the order of samples that follows.

A mixture that a domain's text is too short for is an error before training, with the share that
would do; what an estimator plans is held against the same limit while training runs.
"""

from __future__ import annotations

import math

from mixopt.errors import MixtureError, SamplerError
from mixopt.mixture import Mixture
from mixopt.pretraining.config import MixtureSource, PretrainConfig
from mixopt.pretraining.run_text import RunText
from mixopt.sampling import MixtureSampler

Scheduled = list[tuple[int, Mixture, str]]


def scheduled_mixtures(config: PretrainConfig, corpus: RunText) -> Scheduled:
    """Return the first batch of each mixture that is known beforehand, the mixture, and its source.

    Raises:
        MixtureError: A file that cannot be read, or weights that are no mixture of the domains.
    """
    first = (0, _mixture(config.mixture, "mixture", corpus), f"start: {config.mixture.why}")
    later = [
        (entry.step, _mixture(entry, f"schedule.{k}", corpus), f"schedule: {entry.why}")
        for k, entry in enumerate(config.schedule)
    ]
    return [first, *later]


def make_sampler(config: PretrainConfig, sizes: dict[str, int], known: Scheduled) -> MixtureSampler:
    """Lay out the order of samples for this rank.

    Args:
        config: Batches, seed and epochs; of a stream these are counted while it is read.
        sizes: Rows of each domain.
        known: The mixtures.

    Raises:
        SamplerError: The ranks or the micro-batch do not divide the batch.
        MixtureError: A domain would be seen more often than `max_epochs`.
    """
    training = config.training
    max_epochs = None if config.stream else config.max_epochs
    sampler = MixtureSampler(
        sizes,
        known[0][1],
        batch_size=training.batch,
        seed=config.seed,
        batches=training.steps,
        schedule=[(batch, mixture) for batch, mixture, _ in known[1:]],
        max_epochs=max_epochs,
    )
    micro = training.micro_batch or sampler.rank_batch
    if sampler.rank_batch % micro:
        raise SamplerError(
            f"training.micro_batch {micro} does not divide the {sampler.rank_batch} sequences that"
            f" each of {sampler.world_size} ranks has of a batch of {training.batch}"
        )
    if max_epochs is not None:
        _check_epochs(config, max_epochs, sizes, known)
    return sampler


def _mixture(source: MixtureSource, field: str, corpus: RunText) -> Mixture:
    try:
        if source.anchor == "natural":
            if corpus.natural is None:
                raise MixtureError("natural is not known of a stream: give stream.domains.*.tokens")
            return corpus.natural
        if source.anchor == "uniform":
            return Mixture.uniform(corpus.domain_names)
        given = Mixture.from_file(source.file) if source.file else Mixture(source.weights or {})
        return given.over(corpus.domain_names)
    except MixtureError as error:
        where = f"{field}.{'anchor' if source.anchor else 'file' if source.file else 'weights'}"
        raise MixtureError(f"{where}: {error}") from error


def _check_epochs(
    config: PretrainConfig, most: float, sizes: dict[str, int], known: Scheduled
) -> None:
    """Count exactly what the known mixtures draw, as if there were no limit."""
    training = config.training
    unlimited = MixtureSampler(
        sizes,
        known[0][1],
        batch_size=training.batch,
        seed=config.seed,
        rank=0,
        world_size=1,
        schedule=[(batch, mixture) for batch, mixture, _ in known[1:]],
    )
    samples = training.steps * training.batch
    for name, drawn in unlimited.counts(samples).items():
        allowed = int(most * sizes[name])
        if drawn > allowed:
            epochs = math.ceil(1000 * drawn / sizes[name]) / 1000
            share = math.floor(1000 * allowed / samples) / 1000
            raise MixtureError(
                f"domain {name!r}: {drawn:,} of {samples:,} sequences are {epochs:g} epochs of its"
                f" {sizes[name]:,}, and max_epochs is {most:g}. Lower its share to {share:g}, or"
                f" allow max_epochs: {epochs:g}"
            )
