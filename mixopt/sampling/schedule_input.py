"""The mixtures given to MixtureSampler: weights and later ones, or a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mixopt.errors import SamplerError
from mixopt.sampling.order import ShareChange
from mixopt.sampling.sampler_input import Weights
from mixopt.sampling.schedule import Schedule
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
        SamplerError: Weights are missing, or given twice; a schedule of another batch, of another
            length, or of several batches or sequence lengths.
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
    batches_of = [span.batch for span in schedule.batch_sizes.spans]
    if len(batches_of) > 1:
        raise SamplerError(
            f"the schedule goes from batches of {batches_of[0]} to {batches_of[1]}: mixopt pretrain"
            " does it; in other loops make a sampler of batch_size=schedule.batch_sizes.unit with "
            "schedule.unit_entries, and take as many of its batches as a step needs"
        )
    lengths = [span.sequence_length for span in schedule.spans]
    if len(lengths) > 1:
        raise SamplerError(
            f"the schedule goes from sequence length {lengths[0]} to {lengths[1]}: rows of "
            "another length need another layout; mixopt pretrain changes it, in other loops make "
            "a sampler for each of schedule.spans"
        )
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
    changes = scheduled_changes(schedule.entries_from(batch), batch_size, sizes)
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
