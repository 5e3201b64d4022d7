"""The mixtures of a run as its file says them, and the order of samples that follows.

The sampler is told of mixtures that are known beforehand when it is made. What is left to do while
the run trains is to write the mixture log: `FixedMixture`, with what the loop asks of a driver.

A mixture that a domain's text is too short for is an error before training, with the share that
would do; what an estimator plans is held against the same limit while training runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mixopt.errors import MixtureError, RunError, SamplerError
from mixopt.mixture import Mixture
from mixopt.online import MixtureLog
from mixopt.pretraining.config import MixtureSource, PretrainConfig
from mixopt.pretraining.run_text import RunText
from mixopt.sampling import MixtureSampler, Schedule
from mixopt.system import StateFields

Scheduled = list[tuple[int, Mixture, str]]


def scheduled_mixtures(config: PretrainConfig, corpus: RunText) -> Scheduled:
    """Return the first step of each mixture that is known beforehand, the mixture, and its source.

    Raises:
        MixtureError: A file that cannot be read, or weights that are not a mixture of the domains.
    """
    if config.plan is not None:
        return _staged(config.plan, corpus)
    first = (0, _mixture(config.mixture, "mixture", corpus), f"start: {config.mixture.why}")
    later = [
        (entry.step, _mixture(entry, f"schedule.{k}", corpus), f"schedule: {entry.why}")
        for k, entry in enumerate(config.schedule)
    ]
    return [first, *later]


def _staged(plan: Schedule, corpus: RunText) -> Scheduled:
    found: Scheduled = []
    for k, stage in enumerate(plan.stages):
        try:
            mixture = stage.mixture.over(corpus.domain_names)
        except MixtureError as error:
            raise MixtureError(f"schedule: stages.{k}.mixture: {error}") from error
        why = f"schedule: {stage.name or k}" + (", linearly to its end" if stage.to else "")
        found.append((plan.starts[k], mixture, why))
    return found


def make_sampler(
    config: PretrainConfig, sizes: dict[str, int], known: Scheduled, ranks: int
) -> MixtureSampler:
    """Lay out the order of samples for this rank.

    Args:
        config: Batches, seed and epochs; of a stream these are counted while it is read.
        sizes: Rows of each domain.
        known: The mixtures.
        ranks: How many share each batch.

    Raises:
        SamplerError: The ranks or the micro-batch do not divide the batch.
        MixtureError: A domain would be seen more often than `max_epochs`.
    """
    _check_ranks(config, ranks)
    max_epochs = None if config.stream else config.max_epochs
    sampler = MixtureSampler(
        sizes,
        known[0][1],
        batch_size=config.training.batch,
        seed=config.seed,
        batches=config.training.steps,
        schedule=_entries(config, known),
        max_epochs=max_epochs,
    )
    _check_micro_batch(config, ranks)
    if max_epochs is not None:
        _check_epochs(config, max_epochs, sizes, known)
    return sampler


def _check_ranks(config: PretrainConfig, ranks: int) -> None:
    field = "training.batch" if config.plan is None else "schedule: batch"
    batch = config.training.batch
    if batch % ranks:
        down = batch - batch % ranks
        near = f"{down} or {down + ranks}" if down else str(ranks)
        raise SamplerError(
            f"{field}: {batch} sequences over all ranks: {ranks} ranks do not divide it; use {near}"
        )


def _check_micro_batch(config: PretrainConfig, ranks: int) -> None:
    rows = config.training.batch // ranks
    micro = min(config.training.micro_batch or rows, rows)
    if rows % micro:
        raise SamplerError(
            f"training.micro_batch {micro} does not divide the {rows} sequences that each of"
            f" {ranks} ranks has of a batch of {config.training.batch}"
        )


def _entries(config: PretrainConfig, known: Scheduled) -> Sequence[Any]:
    """Return what the sampler is told of the mixtures; a first one that is linear comes again."""
    if config.plan is not None:
        return config.plan.entries
    return [(step, mixture) for step, mixture, _ in known[1:]]


class FixedMixture:
    """Writes a line of the mixture log when a mixture begins to hold."""

    def __init__(
        self,
        known: Scheduled,
        log: Path,
        changes: Callable[[], Mapping[int, Mixture]] | None = None,
    ) -> None:
        """Begin before the first step.

        Args:
            known: First batch, mixture and source of each, in order; the first from batch 0.
            log: The mixture log.
            changes: Says what holds from which batch, where a file that is watched may change it.
        """
        self._known = {batch: (mixture, why) for batch, mixture, why in known}
        self._domains = list(known[0][1])
        self._changes = changes
        self._log = MixtureLog(log)
        self._step, self._is_fresh, self._is_changed = 0, True, False

    def start(self) -> None:
        """Write the mixture that the run starts from, or resumes with where domains changed."""
        if self._is_fresh:
            self._log.cut(0)
            self._write()
        elif self._is_changed:
            before = max(batch for batch in self._known if batch <= self._step)
            self._write_line(self._known[before][0], "domains changed")

    def record(self, losses: Tensor, domain: Tensor, mask: Tensor | None = None) -> None:
        """Nothing depends on losses."""

    def step(self, *, learning_rate: float) -> None:
        """Note an optimiser step."""
        self._step += 1
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were taken and how long the log is."""
        return {"step": self._step, "domains": self._domains, "log_size": self._log.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; what the log has after it is cut off.

        Raises:
            RunError: The state cannot be right, or the log is shorter than it was.
        """
        fields = StateFields(state, "the mixture's state", RunError)
        step, domains = fields.whole("step"), fields.texts("domains")
        self._log.cut(fields.whole("log_size"))
        self._step, self._is_fresh = step, False
        self._is_changed = domains != self._domains

    def _write(self) -> None:
        if self._changes is not None and self._step:
            found = self._changes().get(self._step)
            if found is not None:
                before, why = self._known.get(self._step, (None, ""))
                self._write_line(found, why if found == before else "watch: another schedule")
        elif self._step in self._known:
            self._write_line(*self._known[self._step])

    def _write_line(self, mixture: Mixture, why: str) -> None:
        self._log.write(self._step, self._step + 1, mixture, why, shadow=False)


def _mixture(source: MixtureSource, field: str, corpus: RunText) -> Mixture:
    try:
        if source.anchor == "natural":
            if corpus.natural is None:
                raise MixtureError(
                    "natural is not known for a stream: give stream.domains.*.tokens"
                )
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
    unlimited = MixtureSampler(
        sizes,
        known[0][1],
        batch_size=config.training.batch,
        seed=config.seed,
        rank=0,
        world_size=1,
        schedule=_entries(config, known),
    )
    samples = config.training.steps * config.training.batch
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
