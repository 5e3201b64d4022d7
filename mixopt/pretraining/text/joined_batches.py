"""Batches of steps that differ in size, each joined of as many unit batches as it needs.

The units are the batches of an ordinary loader (mixopt.sampling.batch_sizes), whose state is that
of the run, so that a run resumes at any step, on another number of ranks too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from mixopt.pretraining.run_text import RankBatches
from mixopt.pretraining.text.spanned_batches import SpannedBatches
from mixopt.sampling import BatchSizes, MixtureSampler


class JoinedBatches:
    """This rank's part of the batch of each step."""

    def __init__(self, units: RankBatches, sizes: BatchSizes) -> None:
        """Join unit batches.

        Args:
            units: This rank's part of each.
            sizes: How many sequences a step takes.
        """
        self._units, self._sizes = units, sizes

    @property
    def units(self) -> RankBatches:
        """The unit batches that steps are joined of."""
        return self._units

    @property
    def sampler(self) -> MixtureSampler:
        """The order of the samples, by unit batches."""
        return self._units.sampler

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches from the next step to the last of the run.

        Beside what a unit has, each has `positions`: the global position of each of its samples.
        """
        sizes, units = self._sizes, iter(self._units)
        for step in range(sizes.step_of(self.sampler.batch * sizes.unit), sizes.steps):
            count = sizes.batch_at(step) // sizes.unit
            yield _joined([next(units) for _ in range(count)])

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the batches received."""
        return self._units.state_dict()

    def load_state_dict(
        self, state: Mapping[str, Any], *, map_domains: Mapping[str, str | None] | None = None
    ) -> None:
        """Resume from a state; `go_to` has come before."""
        self._units.load_state_dict(state, map_domains=map_domains)

    def go_to(self, step: int) -> None:
        """Have the rows of the last batch before a step, which a state there is of."""
        if isinstance(self._units, SpannedBatches):
            self._units.go_to(self._sizes.units_before(step))


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    tensors = {name: torch.cat([part[name] for part in parts]) for name in ("input_ids", "domain")}
    positions = [part["position"] + k for part in parts for k in range(len(part["domain"]))]
    return {**parts[0], **tensors, "positions": positions}
