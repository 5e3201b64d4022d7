"""Optimiser steps on a stream of samples: the first batch of each, and the tokens consumed.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.errors import EstimatorError, SamplerError
from mixopt.loading import MixtureLoader
from mixopt.online.run_setting import Lengths, lengths_of
from mixopt.sampling import MixtureSampler
from mixopt.system import Array, StateFields

MOST_LAG = 1 << 24  # steps that worker processes are ahead


@dataclass(frozen=True)
class StreamState:
    """What a state of `StreamSteps` holds."""

    base: int
    step_samples: int
    lag: int
    since: int
    counts: dict[str, int] | None

    @classmethod
    def read(cls, fields: StateFields, domains: Sequence[str] | None, step: int) -> StreamState:
        """Check the fields of a state."""
        counts = fields.maybe("counts", fields.part)
        if counts is not None and domains is not None and set(counts.content) != set(domains):
            fields.refuse("counts", "not of the domains")
        return cls(
            base=fields.whole("base"),
            step_samples=fields.whole("step_samples", 1),
            lag=fields.whole("lag", 0, MOST_LAG),
            since=fields.whole("since", 0, step),
            counts=None if counts is None else {n: counts.whole(n) for n in counts.content},
        )


class StreamSteps:
    """Counts from the sampler, so the same on every rank and whatever was fetched ahead."""

    def __init__(
        self,
        mixture: MixtureLoader | MixtureSampler,
        accumulation: int,
        tokens_per_sample: Lengths,
    ) -> None:
        """Begin at the sampler's next batch."""
        self.mixture = mixture
        self.sampler = mixture.sampler if isinstance(mixture, MixtureLoader) else mixture
        self.lengths_D = lengths_of(tokens_per_sample, self.sampler.domains)
        self.accumulation = accumulation
        self.step_samples = self.sampler.batch_size * accumulation
        self._base, self._since = 0, 0
        self._counts: dict[str, int] | None = None
        self._lag = 0
        if isinstance(mixture, MixtureLoader):
            self._lag = -(-mixture.workers * mixture.prefetch // accumulation)
        self.begin()

    def begin(self) -> None:
        """Let step 1 begin with the sampler's next batch."""
        self.mixture.accumulate(self.accumulation)
        self._base = self.sampler.batch * self.sampler.batch_size

    def position(self, step: int) -> int:
        """Return the position in the stream after so many steps."""
        return self._base + step * self.step_samples

    def batch(self, step: int) -> int:
        """Return the global batch with which a step begins; steps count from 1."""
        return self.position(step - 1) // self.sampler.batch_size

    def lag(self, step: int) -> int:
        """Count the steps after `step` whose batches were handed out, and cannot change."""
        if self.sampler is self.mixture:  # as many as a DataLoader was seen to ask for ahead
            samples = self.sampler.batch * self.sampler.batch_size - self._base
            self._lag = max(self._lag, -(-samples // self.step_samples) - step)
        return self._lag

    def check(self, step: int) -> None:
        """Check that the loop received as many batches as its steps say."""
        received, expected = self.sampler.batch, self.batch(step + 1)
        if received == expected or (self.sampler is self.mixture and received > expected):
            return
        raise EstimatorError(
            f"after step {step} the loop is at batch {received}, with accumulation="
            f"{self.accumulation} it is at {expected}: call step() once per optimiser step, and"
            " load the states of loader and driver from one checkpoint"
        )

    def set_weights(self, step: int, weights: Mapping[str, float]) -> None:
        """Let weights hold from the first batch of a step."""
        try:
            self.mixture.set_weights(weights, self.batch(step))
        except SamplerError as error:
            raise EstimatorError(
                f"{error}; call start() before the first batch is asked for"
            ) from error

    def take_tokens(self, step: int) -> Array:
        """Return the tokens of each domain in the steps since this was last asked, shape (D,)."""
        before = self._counts or self.sampler.counts(self.batch(self._since + 1))
        self._counts = self.sampler.counts(self.batch(step + 1))
        counts_D = [self._counts[name] - before[name] for name in self.sampler.domains]
        return np.array(counts_D, np.float64) * self.lengths_D

    def state_dict(self) -> dict[str, Any]:
        """Return where the steps begin and what was consumed when last asked."""
        return {
            "base": self._base,
            "step_samples": self.step_samples,
            "lag": self._lag,
            "since": self._since,
            "counts": self._counts or self.sampler.counts(self.batch(self._since + 1)),
        }

    def load_state_dict(self, state: Mapping[str, Any], step: int, *, same: bool) -> None:
        """Resume from a state."""
        fields = StateFields(state, "the state of the stream's steps", EstimatorError)
        domains = self.sampler.domains if same else None
        self.use(StreamState.read(fields, domains, step), step, same=same)

    def check_samples(self, state: StreamState) -> None:
        """Check that a step has as many samples as it had."""
        if state.step_samples != self.step_samples:
            raise EstimatorError(
                f"a step had {state.step_samples} samples, here it has {self.step_samples}: keep"
                " batch_size x accumulation unchanged"
            )

    def use(self, state: StreamState, step: int, *, same: bool) -> None:
        """Resume from a state that was read (`load_state_dict`)."""
        self.check_samples(state)
        self._base = state.base
        self._lag = max(self._lag, state.lag)
        self._since, self._counts = state.since, state.counts
        if not same:
            self._since, self._counts = step, None
