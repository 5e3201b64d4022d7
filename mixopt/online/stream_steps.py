"""Optimiser steps on a stream of samples: the first batch of each, and the tokens consumed.

Where steps differ in size (mixopt.sampling.batch_sizes) the sampler's batches are unit batches, of
which each step takes as many as it needs.

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
from mixopt.sampling import BatchSizes, MixtureSampler
from mixopt.system import Array, StateFields

MOST_LAG = 1 << 24  # steps that worker processes are ahead


@dataclass(frozen=True)
class StreamState:
    """What a state of `StreamSteps` holds."""

    base: int
    sizes: BatchSizes
    lag: int
    since: int
    counts: dict[str, int] | None

    @classmethod
    def read(cls, fields: StateFields, domains: Sequence[str] | None, step: int) -> StreamState:
        """Check the fields of a state.

        Args:
            fields: Those of `StreamSteps.state_dict`.
            domains: Names of its domains, where they are known.
            step: The step after which it was asked for.

        Raises:
            EstimatorError: A field is missing or cannot be right.
        """
        counts = fields.maybe("counts", fields.part)
        if counts is not None and domains is not None and set(counts.content) != set(domains):
            fields.refuse("counts", "not of the domains")
        return cls(
            base=fields.whole("base"),
            sizes=_sizes(fields),
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
        sizes: BatchSizes | None = None,
    ) -> None:
        """Begin at the sampler's next batch.

        Args:
            mixture: Where the batches come from.
            accumulation: Global batches of an optimiser step.
            tokens_per_sample: Tokens of a sample, for all domains or by domain.
            sizes: Samples of each step, where steps differ; their unit is the sampler's batch.

        Raises:
            EstimatorError: Tokens that are not > 0, or of other domains; sizes of another unit.
            SamplerError: The loader was made with another accumulation.
        """
        self.mixture = mixture
        self.sampler = mixture.sampler if isinstance(mixture, MixtureLoader) else mixture
        self.lengths_D = lengths_of(tokens_per_sample, self.sampler.domains)
        self.accumulation = accumulation
        self.sizes = BatchSizes.of([(1, self.sampler.batch_size * accumulation)])
        if sizes is not None and not sizes.is_constant:
            self.sizes = sizes
        if sizes is not None and sizes.unit != self.sampler.batch_size:
            raise EstimatorError(
                f"batch_sizes: their unit is {sizes.unit}, and the sampler's batches are of"
                f" {self.sampler.batch_size}: give MixtureSampler(batch_size={sizes.unit})"
            )
        self._base, self._since = 0, 0
        self._counts: dict[str, int] | None = None
        self._lag = 0
        if isinstance(mixture, MixtureLoader):
            ahead = mixture.workers * mixture.prefetch * self.sampler.batch_size
            self._lag = -(-ahead // min(span.batch for span in self.sizes.spans))
        self.begin()

    @property
    def is_ramp(self) -> bool:
        """Whether steps differ in size."""
        return not self.sizes.is_constant

    def begin(self) -> None:
        """Let step 1 begin with the sampler's next batch."""
        self.mixture.accumulate(self.accumulation)
        self._base = self.sampler.batch * self.sampler.batch_size

    def position(self, step: int) -> int:
        """Return the position in the stream after so many steps."""
        return self._base + self.sizes.samples_before(step)

    def batch(self, step: int) -> int:
        """Return the global batch with which a step begins; steps count from 1."""
        return self.position(step - 1) // self.sampler.batch_size

    def logged_batch(self, step: int) -> int:
        """Return the same as a user counts, to whom unit batches are nothing: one a step."""
        return step - 1 if self.is_ramp else self.batch(step)

    def lag(self, step: int) -> int:
        """Count the steps after `step` whose batches were handed out, and cannot change."""
        if self.sampler is self.mixture:  # as many as a DataLoader was seen to ask for ahead
            samples = self.sampler.batch * self.sampler.batch_size - self._base
            begun = self.sizes.step_of(samples - 1) + 1 if samples > 0 else 0
            self._lag = max(self._lag, begun - step)
        return self._lag

    def check(self, step: int) -> None:
        """Check that the loop received as many batches as its steps say.

        Raises:
            EstimatorError: It did not.
        """
        received, expected = self.sampler.batch, self.batch(step + 1)
        if received == expected or (self.sampler is self.mixture and received > expected):
            return
        said = "batch_sizes" if self.is_ramp else f"accumulation={self.accumulation}"
        raise EstimatorError(
            f"after step {step} the loop is at batch {received}, with {said} it is at {expected}:"
            " call step() once per optimiser step, and load the states of loader and driver from"
            " one checkpoint"
        )

    def set_weights(self, step: int, weights: Mapping[str, float]) -> None:
        """Let weights hold from the first batch of a step.

        Raises:
            EstimatorError: The batch was handed out.
            MixtureError: Weights that the sampler cannot draw by.
        """
        try:
            self.mixture.set_weights(weights, self.batch(step))
        except SamplerError as error:
            raise EstimatorError(
                f"{error}; call start() before the first batch is asked for"
            ) from error

    def take_tokens(self, step: int) -> Array:
        """Return the tokens of each domain in the steps since this was last asked, shape (D,)."""
        before = self._counts or self.sampler.counts(self.position(self._since))
        self._counts = self.sampler.counts(self.position(step))
        counts_D = [self._counts[name] - before[name] for name in self.sampler.domains]
        return np.array(counts_D, np.float64) * self.lengths_D

    def state_dict(self) -> dict[str, Any]:
        """Return where the steps begin and what was consumed when last asked."""
        state = {
            "base": self._base,
            "step_samples": self.sizes.unit,
            "lag": self._lag,
            "since": self._since,
            "counts": self._counts,
        }
        return state | {"ramp": self.sizes.parts} if self.is_ramp else state

    def load_state_dict(self, state: Mapping[str, Any], step: int, *, same: bool) -> None:
        """Resume from a state.

        Args:
            state: What `state_dict` returned.
            step: The step after which it was asked for.
            same: Whether its domains are these; else what is consumed counts from here on.

        Raises:
            EstimatorError: A step had another number of samples, or a field cannot be right.
        """
        fields = StateFields(state, "the state of the stream's steps", EstimatorError)
        domains = self.sampler.domains if same else None
        self.use(StreamState.read(fields, domains, step), step, same=same)

    def check_samples(self, state: StreamState, step: int) -> None:
        """Check that the steps up to one have as many samples as they had.

        Raises:
            EstimatorError: They have not.
        """
        had, has = (sizes.until(max(step, 1)) for sizes in (state.sizes, self.sizes))
        if had == has:
            return
        if had.is_constant and has.is_constant:
            raise EstimatorError(
                f"a step had {had.unit} samples, here it has {has.unit}: keep batch_size x"
                " accumulation unchanged"
            )
        raise EstimatorError(
            f"up to step {step} there were {_shown(had)} samples, here there are {_shown(has)}:"
            " keep batch_sizes unchanged"
        )

    def use(self, state: StreamState, step: int, *, same: bool) -> None:
        """Resume from a state that was read (`load_state_dict`)."""
        self.check_samples(state, step)
        self._base = state.base
        self._lag = max(self._lag, state.lag)
        self._since, self._counts = state.since, state.counts
        if not same:
            self._since, self._counts = step, None


def _sizes(fields: StateFields) -> BatchSizes:
    if "ramp" not in fields.content:
        return BatchSizes.of([(1, fields.whole("step_samples", 1))])
    parts = fields.int_array("ramp", (-1, 2), least=1).tolist()
    return BatchSizes.of([(steps, samples) for steps, samples in parts])


def _shown(sizes: BatchSizes) -> str:
    return ", ".join(f"{steps} x {samples}" for steps, samples in sizes.parts)
