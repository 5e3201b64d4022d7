"""Detect that accelerate is about to split a rank's part over ranks again.

Prepared, a DataLoader over a MixtureSampler gives each rank every R-th batch of its own part, or
rank 0's part alone, cut in pieces, and nothing about training shows it. accelerate asks the batch
sampler for its `sampler` when it prepares one, and a dataset for its `set_epoch` when it iterates,
on every rank; here they are asked.
"""

from __future__ import annotations

import sys

from mixopt.errors import SamplerError

_ASKS = "accelerate.data_loader"


def refuse_second_split(world_size: int, name: str) -> AttributeError:
    """Return the error for a missing attribute, for a property that raises it.

    Args:
        world_size: Over how many ranks batches are split.
        name: Of the attribute.

    Raises:
        SamplerError: accelerate asks, and there are several ranks.
    """
    module = sys._getframe(2).f_globals.get("__name__")
    if module == _ASKS and world_size > 1:
        raise SamplerError(
            "accelerate's prepare() would split each batch over the ranks a second time: do not "
            "prepare a DataLoader over a MixtureSampler or a MixtureStream; use "
            "MixtureLoader(dataset, sampler), which prepare() leaves unchanged"
        )
    return AttributeError(name)
