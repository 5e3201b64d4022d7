"""Batches of a corpus whose sequence length grows during the run.

Rows of another length are another layout of the same text. Where a stage has another sequence
length, the loader is made again with it; how much was drawn of each domain and what it is owed go
with it, and each domain begins a new epoch, as one whose size was changed on purpose does
(mixopt.sampling.domain_map). Each domain's share of the tokens is not touched by that, nor are
mixtures that are known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mixopt.loading import MixtureLoader
from mixopt.sampling import LengthSpan, MixtureSampler


class SpannedBatches:
    """This rank's batches, by one loader for each sequence length after another."""

    def __init__(
        self, spans: Sequence[LengthSpan], rows_of_length: Callable[[int], MixtureLoader]
    ) -> None:
        """Begin with the first.

        Args:
            spans: Batches of one sequence length, in order, without a gap.
            rows_of_length: Makes the loader of one, before its first batch.
        """
        self._spans, self._rows_of_length = spans, rows_of_length
        self._number = 0
        self._loader = rows_of_length(spans[0].sequence_length)

    @property
    def sampler(self) -> MixtureSampler:
        """The order of the samples of the present length."""
        return self._loader.sampler

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the batches from the next one to the last of the run."""
        while True:
            if self.sampler.batch < self._spans[self._number].stop:
                yield from self._to_the_end_of_the_span()
            if self._number + 1 == len(self._spans):
                return
            state = self.state_dict()
            self._use(self._number + 1)
            self._loader.load_state_dict(state, map_domains={})

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the batches received, of the length that they had."""
        return self._loader.state_dict()

    def load_state_dict(
        self, state: Mapping[str, Any], *, map_domains: Mapping[str, str | None] | None = None
    ) -> None:
        """Resume from a state; `go_to` has come before."""
        self._loader.load_state_dict(state, map_domains=map_domains)

    def go_to(self, batch: int) -> None:
        """Have the loader of the last batch before one, which a state there is of."""
        before = [k for k, span in enumerate(self._spans) if span.start < batch]
        self._use(before[-1] if before else 0)

    def _use(self, number: int) -> None:
        self._number = number
        self._loader = self._rows_of_length(self._spans[number].sequence_length)

    def _to_the_end_of_the_span(self) -> Iterator[dict[str, Any]]:
        stop = self._spans[self._number].stop
        for batch in self._loader:
            yield batch
            if self.sampler.batch >= stop:
                return
