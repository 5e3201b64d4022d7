"""Train on a mixture with torchdata's StatefulDataLoader.

With worker processes it takes the sampler's state when it asks a worker for a batch, some batches
before the loop receives it, so that a change of weights that was made in between and is still to
come is lost on resume. What the loop has received is in the state all the same: it is written again
with all changes that are known.
"""

from __future__ import annotations

from typing import Any

from torchdata.stateful_dataloader import (  # type: ignore[import-untyped,unused-ignore]
    StatefulDataLoader,
)

from mixopt.errors import SamplerError
from mixopt.sampling import MixtureSampler, check_ranks

_SAMPLER = "_index_sampler_state"


class StatefulMixtureLoader(StatefulDataLoader):  # type: ignore[misc,unused-ignore]
    """torchdata's loader over `batch_sampler=MixtureSampler(...)`; the state has every change."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the batches received; all ranks ask for it.

        Raises:
            SamplerError: The loader has another batch sampler, or ranks have other orders of
                samples; the message names the rank.
        """
        sampler = self.batch_sampler
        if not isinstance(sampler, MixtureSampler):
            raise SamplerError(
                "StatefulMixtureLoader is for batch_sampler=MixtureSampler(...); use torchdata's"
                " StatefulDataLoader for others"
            )
        check_ranks(sampler)
        state: dict[str, Any] = super().state_dict()
        holder = state["_snapshot"]["_main_snapshot"] if "_snapshot" in state else state
        received = holder[_SAMPLER]["position"] // sampler.batch_size
        holder[_SAMPLER] = sampler.state_at(received)
        return state
