"""Read a schedule that is given to a sampler: weights with the batches from which they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixopt.errors import SamplerError
from mixopt.sampling.sampler_input import Weights, at_least, mixture_over
from mixopt.sampling.stream_spec import MixtureChange, MixtureEnd
from mixopt.system import shown_value

Scheduled = tuple[int, Weights] | tuple[int, Weights, int, Weights]


def scheduled_changes(
    schedule: Sequence[Scheduled], batch_size: int, sizes: Mapping[str, int]
) -> list[MixtureChange]:
    """Return the changes of a schedule.

    Args:
        schedule: `(batch, weights)`, or `(batch, weights, end_batch, end_weights)` for shares that
            go linearly from one batch to another.
        batch_size: Samples of a global batch.
        sizes: Rows of each domain.

    Raises:
        SamplerError: A batch that cannot be, or a stage of another form.
        MixtureError: Weights that are not a mixture of these domains.
    """
    changes = []
    for k, stage in enumerate(schedule):
        if not isinstance(stage, Sequence) or len(stage) not in (2, 4):
            raise SamplerError(
                f"schedule.{k}: {shown_value(stage)} is neither (batch, weights) nor (batch,"
                " weights, end_batch, end_weights)"
            )
        batch = at_least(0, "schedule: batch", stage[0])
        end = None
        if len(stage) == 4:
            last = at_least(batch + 1, "schedule: end_batch", stage[2])
            end = MixtureEnd(last * batch_size, mixture_over(stage[3], sizes))
        changes.append(MixtureChange(batch * batch_size, mixture_over(stage[1], sizes), end))
    return changes
