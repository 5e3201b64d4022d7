"""Batches whose size changes from step to step, over an order of samples that knows nothing of it.

The order is that of a sampler whose batches have the greatest size that divides all of them, the
unit; a step takes as many unit batches as it needs, one after another. So what is promised at the
end of a unit batch (mixopt.sampling.sampler) holds at the end of each step, changes of weights fall
between steps, and a state is one of the sampler's.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class BatchSpan(NamedTuple):
    """Steps [start, stop) with batches of one size, in sequences."""

    start: int
    stop: int
    batch: int


@dataclass(frozen=True)
class BatchSizes:
    """The size of each step's batch.

    Attributes:
        spans: In order, without a gap, from step 0 to the end; neighbours differ in size.
    """

    spans: tuple[BatchSpan, ...]

    @classmethod
    def of(cls, parts: Sequence[tuple[int, int]]) -> BatchSizes:
        """Return those of parts of a run, one after another: steps and batch, both at least 1."""
        found: list[BatchSpan] = []
        for steps, batch in parts:
            start = found[-1].stop if found else 0
            if found and found[-1].batch == batch:
                found[-1] = found[-1]._replace(stop=start + steps)
            else:
                found.append(BatchSpan(start, start + steps, batch))
        return cls(tuple(found))

    @property
    def is_constant(self) -> bool:
        """Whether all steps have batches of one size."""
        return len(self.spans) == 1

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.spans[-1].stop

    @cached_property
    def unit(self) -> int:
        """Sequences of a unit batch."""
        return math.gcd(*(span.batch for span in self.spans))

    def batch_at(self, step: int) -> int:
        """Return the sequences of a step; after the end those of the last."""
        return self.spans[self._span_at(step)].batch

    def samples_before(self, step: int) -> int:
        """Return the sequences of the steps before a step."""
        k = self._span_at(step)
        return self._samples[k] + (step - self.spans[k].start) * self.spans[k].batch

    def until(self, step: int) -> BatchSizes:
        """Return those of the steps before one, at least 1; after the end as the last."""
        spans = [span for span in self.spans if span.start < step]
        spans[-1] = spans[-1]._replace(stop=step)
        return BatchSizes(tuple(spans))

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Steps and batch of each span, of which `of` makes them again."""
        return [(span.stop - span.start, span.batch) for span in self.spans]

    def units_before(self, step: int) -> int:
        """Return the unit batches of the steps before a step."""
        return self.samples_before(step) // self.unit

    def step_of(self, sample: int) -> int:
        """Return the step that takes a sample, by its number from 0."""
        k = bisect_right(self._samples, sample) - 1
        return self.spans[k].start + (sample - self._samples[k]) // self.spans[k].batch

    @cached_property
    def _samples(self) -> list[int]:
        """Return the sequences before each span."""
        found = [0]
        for span in self.spans[:-1]:
            found.append(found[-1] + (span.stop - span.start) * span.batch)
        return found

    def _span_at(self, step: int) -> int:
        return min(bisect_right([span.start for span in self.spans], step), len(self.spans)) - 1
