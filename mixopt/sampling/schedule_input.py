"""The mixtures given to MixtureSampler: weights and later ones, or a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.order import ShareChange
from mixopt.sampling.sampler_input import Weights
from mixopt.sampling.schedule import Schedule, ScheduleEntry
from mixopt.sampling.scheduled_changes import Scheduled, scheduled_changes
from mixopt.sampling.stream_spec import StreamSpec


class GivenMixtures(NamedTuple):
    """The mixtures of a sampler: the first, the sizes of a batch and a pass, and later ones."""

    weights: Weights
    batch_size: int
    batches: int | None
    later: Sequence[Scheduled]


def given_mixtures(
    weights: Weights | None,
    batch_size: int | None,
    batches: int | None,
    schedule: Schedule | Sequence[Scheduled],
) -> GivenMixtures:
    """Return the mixtures that a sampler is made with.

    Raises:
        SamplerError: Weights are missing, or given twice; a schedule of another batch or length.
    """
    if not isinstance(schedule, Schedule):
        if weights is None or batch_size is None:
            missing = "weights" if weights is None else "batch_size"
            raise SamplerError(f"a sampler needs {missing}, or schedule=Schedule(...)")
        return GivenMixtures(weights, batch_size, batches, schedule)
    if weights is not None:
        raise SamplerError("a schedule has the weights: leave out weights, or give a list of later")
    for name, given, here in (
        ("batch_size", batch_size, schedule.batch),
        ("batches", batches, schedule.steps),
    ):
        if given not in {None, here}:
            raise SamplerError(f"{name} {given} differs from the schedule's, {here}; leave it out")
    entries = schedule.entries
    # The first stage again as the first change: it may be linear.
    return GivenMixtures(entries[0][1], schedule.batch, schedule.steps, entries)


def followed(
    stream: StreamSpec, schedule: Schedule, batch: int, batch_size: int
) -> StreamSpec | None:
    """Return a stream that follows a schedule from a batch on; None where it does so already.

    Args:
        stream: What is followed now; what it has before the batch is kept.
        schedule: The schedule of the whole run.
        batch: From which it holds.
        batch_size: Samples of a batch.
    """
    layout, position = stream.layout, batch * batch_size
    sizes = dict(zip(layout.names, layout.sizes, strict=True))
    whole = scheduled_changes(schedule.entries, batch_size, sizes)
    there = StreamSpec.over(layout, stream.tokens_per_sample, whole[0].mixture, whole)
    changes = scheduled_changes(_entries_from(schedule, batch), batch_size, sizes)
    found = stream.until(position)
    if list(found.changes) and _holding(found, position) == _holding(there, position):
        changes = changes[1:]
    for change in changes:
        found = found.changed(change)
    return None if list(found.changes) == list(stream.changes) else found


def _holding(stream: StreamSpec, position: int) -> ShareChange | tuple[int, ...]:
    """Return the shares that stay from a position on, or the ramp that is on its way there."""
    change = stream.change_at(position)
    if change.end is None:
        return change.shares
    return change.end.shares if position >= change.end.position else change


def _entries_from(schedule: Schedule, step: int) -> list[ScheduleEntry]:
    """Return the entries from a step on; the first begins there."""
    later = [entry for entry in schedule.entries if entry[0] > step]
    holds = [entry for entry in schedule.entries if entry[0] <= step][-1]
    if holds[0] == step or len(holds) == 2:
        return [(step, *holds[1:]), *later]
    start, first, stop, last = holds
    part = min((step - start) / (stop - start), 1.0)
    here = Mixture({name: w + part * (last[name] - w) for name, w in first.items()})
    return [(step, here, stop, last) if step < stop else (step, last), *later]
