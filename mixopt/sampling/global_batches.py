"""The global batches of a stream: which rows they are, with weights that can change between them.

It is the same on every rank, and knows nothing of ranks; MixtureSampler adds which part is whose.

Shapes: D domains, B samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.batch_rows import BatchRows
from mixopt.sampling.order import Origin
from mixopt.sampling.sample_lengths import SampleLengths, Unit
from mixopt.sampling.sample_order import SampleOrder
from mixopt.sampling.sampler_input import (
    Weights,
    at_least,
    mixture_over,
)
from mixopt.sampling.sampler_log import LogEntry, read_log
from mixopt.sampling.sampler_state import read_state, write_state
from mixopt.sampling.schedule import Schedule
from mixopt.sampling.schedule_input import followed, given_mixtures
from mixopt.sampling.stream_spec import MixtureChange, StreamSpec
from mixopt.sampling.token_order import KEPT, TokenBatches, TokenOrder
from mixopt.sampling.token_state import read_token_state, write_token_state
from mixopt.system import IntArray

_FAR = 1 << 50


class GlobalBatches:
    """Rows of each global batch, from a state on, with the weights as they are known."""

    _stream: StreamSpec
    _order: SampleOrder | TokenOrder

    def __init__(
        self,
        stream: StreamSpec,
        batch_size: int,
        batches: int | None,
        unit: Unit,
        lengths: SampleLengths,
    ) -> None:
        """Begin with batch 0.

        Args:
            stream: The layout and the mixtures.
            batch_size: Samples of a global batch.
            batches: Global batches of one pass; None without passes.
            unit: What a domain is owed.
            lengths: Tokens of each sample, for units of tokens.
        """
        self.batch_size = batch_size
        self.batches = batches
        self.unit = unit
        self.lengths = lengths
        self._accumulation = 1
        self._use(stream, batch=0)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order."""
        return self._order.layout.names

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each domain."""
        return dict(zip(self.domains, self._order.layout.sizes, strict=True))

    @property
    def batch(self) -> int:
        """The next global batch that the loop receives."""
        return self._batch

    @property
    def order(self) -> SampleOrder:
        """The order of samples with the weights as they are known now.

        Raises:
            SamplerError: It is by tokens.
        """
        if isinstance(self._order, TokenOrder):
            raise SamplerError(
                f"with unit={self.unit!r} the order is sequential, so no position can be read on "
                "its own; iterate, or use global_rows(batch) near the next batch"
            )
        return self._order

    @property
    def chunks(self) -> tuple[int, int] | None:
        """Rows of a chunk and chunks that rows are shuffled over; None for a full shuffle."""
        return self._order.layout.chunks

    @property
    def version(self) -> object:
        """The same object as long as no weights are changed and no state is loaded."""
        return self._order

    @property
    def limits(self) -> tuple[int | None, ...]:
        """How often each domain may be drawn; None for no limit."""
        return self._order.layout.limits

    @property
    def first_known(self) -> int:
        """The first batch that can still be asked for, and whose state can."""
        first = self._order.first if isinstance(self._order, TokenOrder) else self._stream.start
        return -(-first // self.batch_size)

    @property
    def is_sequential(self) -> bool:
        """Whether the order is by tokens, so that no position is known before those before it."""
        return self.unit != "samples"

    def settle(self, batch: int, tokens_D: Sequence[int]) -> None:
        """Record how many tokens of each domain a batch had, where lengths are learned.

        MixtureLoader does so; a loop that iterates over the sampler itself says it before it asks
        for the next batch. Where all lengths are known nothing happens.

        Args:
            batch: The batch that was asked for last.
            tokens_D: Its tokens (or those that carry loss) by domain, over all ranks, shape (D,).

        Raises:
            SamplerError: It is another batch.
        """
        if isinstance(self._rows, TokenBatches) and not self.lengths.are_known:
            self._rows.settle(batch, tokens_D)

    def received(self, batches: int, *, handed_out: int | None = None) -> None:
        """Note how far the loop is, for a loader that fetches ahead.

        Args:
            batches: Global batches that the loop has received since the start of the stream.
            handed_out: Batches that were given to worker processes; weights cannot change there.
        """
        self._batch = batches
        self._handed_out = max(batches, handed_out or 0)
        if isinstance(self._order, TokenOrder):
            self._order.forget((batches - KEPT) * self.batch_size)

    def accumulate(self, batches: int) -> None:
        """Let changes of weights hold from the first batch of an optimizer step alone.

        Steps count from the next batch, and from where a state is loaded.

        Args:
            batches: Global batches of an optimizer step, for a loop that accumulates gradients.

        Raises:
            SamplerError: No whole number >= 1.
        """
        self._accumulation = at_least(1, "accumulation", batches)
        self._begin = self._batch

    @property
    def log(self) -> list[LogEntry]:
        """The weights so far and those to come, and the domains that ran out so far."""
        return read_log(self._stream, self._order, self._batch, self.batch_size)

    def mixture_at(self, batch: int) -> Mixture:
        """Return the mixture that was set for a batch (shares of tokens); of a ramp, its middle."""
        return self._stream.mixture_at(batch * self.batch_size, self.batch_size // 2)

    def set_weights(self, weights: Weights, batch: int | None = None) -> int:
        """Change the weights from a global batch on; say the same on every rank.

        Args:
            weights: Share of the tokens of each domain.
            batch: The batch from which they hold; the next one that can change where not given.

        Returns:
            The batch from which they hold.

        Raises:
            SamplerError: The batch was handed out already, is after the end of the stream, or
                begins no window or optimizer step.
            MixtureError: Weights that are not a mixture of these domains.
        """
        mixture = mixture_over(weights, self.sizes)
        batch = self._changing(batch)
        self._change(batch * self.batch_size, mixture)
        return batch

    def set_schedule(self, schedule: Schedule, batch: int | None = None) -> int | None:
        """Follow another schedule from a batch on; weights that were known for later are dropped.

        Args:
            schedule: The schedule of the whole run; what it says of earlier batches is past.
            batch: As for `set_weights`.

        Returns:
            The batch from which it holds; None where it changes nothing.

        Raises:
            SamplerError: The batch is handed out already, or the schedule is of other batches.
            MixtureError: A mixture that is not one of these domains.
        """
        self.check_schedule(schedule)
        batch = self._changing(batch)
        stream = followed(self._stream, schedule, batch, self.batch_size)
        if stream is None:
            return None
        place, order = self._batch * self.batch_size, self._order
        origin = order.place(place) if isinstance(order, TokenOrder) else stream.origin
        self._stream, self._order = stream, self._ordered(stream, origin)
        self._rows = self.reader()
        return batch

    def check_schedule(self, schedule: Schedule) -> None:
        """Check that a schedule could be followed by this sampler.

        Raises:
            SamplerError: It is of other batches or another length.
            MixtureError: A mixture that is not one of these domains.
        """
        given = given_mixtures(None, self.batch_size, self.batches, schedule)
        for entry in given.later:
            mixture_over(entry[1], self.sizes)

    def first_change(self, ahead: int = 0) -> int:
        """Return the first batch that can change which is `ahead` after those handed out."""
        return self._aligned(self._handed_out + ahead)

    def _changing(self, batch: int | None) -> int:
        """Return a batch from which weights can change; the first where none is given."""
        first = self.first_change()
        batch = first if batch is None else batch
        if batch < self._handed_out:
            raise SamplerError(
                f"set_weights for batch {batch} comes too late: {self._handed_out} is the next;"
                f" the first that can change is {first}"
            )
        if self._aligned(batch) != batch:
            steps = self._accumulation
            why = f"the stream is shuffled in windows of {self._order.layout.window} samples"
            if (batch - self._begin) % steps:
                why = f"an optimizer step is {steps} batches"
            raise SamplerError(
                f"set_weights for batch {batch}: {why}; the first that can change is"
                f" {self._aligned(batch)}"
            )
        return batch

    def locate(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """Return domain numbers and rows of the global samples [start, stop), shape (B,) each.

        Raises:
            SamplerError: The order is by tokens.
        """
        return self.order.locate(start, stop)

    def counts(self, position: int | None = None) -> dict[str, int]:
        """Count the samples before a position by domain; before the next batch if not given."""
        position = self._batch * self.batch_size if position is None else position
        if isinstance(self._order, TokenOrder):
            return dict(zip(self.domains, self._order.place(position).counts_D, strict=True))
        return dict(zip(self.domains, self._order.counts(position).tolist(), strict=True))

    def tokens(self, batch: int | None = None) -> dict[str, int]:
        """Count the tokens before a batch by domain, over all ranks; before the next if not given.

        In the sampler's unit: with `unit="samples"` a sample counts as its domain's
        `tokens_per_sample`, or as one.

        Raises:
            SamplerError: The order is by tokens, and the batch is long past or not known yet.
        """
        batch = self._batch if batch is None else batch
        if isinstance(self._order, TokenOrder):
            had = self._order.place(batch * self.batch_size).tokens_D or (0,) * len(self.domains)
            return dict(zip(self.domains, had, strict=True))
        means = self._stream.tokens_per_sample or (1.0,) * len(self.domains)
        counts = self.counts(batch * self.batch_size)
        return {
            name: round(n * mean) for (name, n), mean in zip(counts.items(), means, strict=True)
        }

    def has(self, batch: int) -> bool:
        """Whether the stream has the whole of a global batch."""
        return self._rows.has(batch)

    def global_rows(self, batch: int) -> IntArray:
        """Return all rows of a batch, in the order of the ranks, shape (batch_size,)."""
        return self._rows.of(batch)

    def reader(self, *, own: bool = False) -> BatchRows | TokenBatches:
        """Return what lays out rows of batches with the weights as they are now, for one thread.

        Args:
            own: The sampler's own, which `settle` is for.
        """
        if own:
            return self._rows
        if isinstance(self._order, TokenOrder):
            return TokenBatches(self._order, self.batch_size)
        return BatchRows(self._order, self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Return the state before the next batch: small, and the same on every rank."""
        return self.state_at(self._batch)

    def state_at(self, batch: int) -> dict[str, Any]:
        """Return the state before a batch, with all changes that are known."""
        if isinstance(self._order, TokenOrder):
            place = self._order.place(batch * self.batch_size)
            return write_token_state(self._stream, place, self.unit, self.lengths)
        return write_state(self._stream, self._order, batch * self.batch_size)

    def load_state_dict(
        self, state: Mapping[str, Any], *, map_domains: Mapping[str, str | None] | None = None
    ) -> None:
        """Resume from a state, on any number of ranks.

        Args:
            state: What `state_dict` returned.
            map_domains: For domains that were changed on purpose: the state's name to the name
                here, or to None for one that is gone. Domains that the state does not have start
                from scratch, and the weights of this sampler hold from here on.

        Raises:
            SamplerError: The state is of another seed, other sizes, domains or settings (all are
                named), in the middle of a batch of this size, or damaged. Nothing is changed.
        """
        self._use(*self._read(state, map_domains))

    def _read(
        self, state: Mapping[str, Any], map_domains: Mapping[str, str | None] | None
    ) -> tuple[StreamSpec, int]:
        """Return the stream of a state, and its next batch."""
        if self.is_sequential:
            stream, position = read_token_state(
                state, self._stream, self.unit, self.lengths, map_domains
            )
        else:
            stream, position = read_state(state, self._stream, map_domains)
        if position % self.batch_size:
            raise SamplerError(
                f"the state is at sample {position}, in the middle of a batch of"
                f" {self.batch_size}; use a batch_size that divides it"
            )
        return stream, position // self.batch_size

    def _use(self, stream: StreamSpec, batch: int) -> None:
        self._stream = stream
        self._order = self._ordered(stream, stream.origin)
        self._begin = batch
        self.received(batch)
        self._rows = self.reader()

    def _ordered(self, stream: StreamSpec, origin: Origin | None) -> SampleOrder | TokenOrder:
        if self.is_sequential:
            return TokenOrder(stream.layout, self.lengths, stream.changes, origin)
        return SampleOrder(stream.layout, stream.changes, origin)

    def _change(self, position: int, mixture: Mixture) -> None:
        self._stream = self._stream.changed(MixtureChange(position, mixture))
        self._order = self._order.changed(self._stream.change_at(position))
        self._rows = self.reader()

    def _aligned(self, batch: int) -> int:
        """Return the first batch from one on that begins a window and an optimizer step."""
        window, steps = self._order.layout.window, self._accumulation
        batches = window // math.gcd(window, self.batch_size)  # from one end to the next
        first = batch + -batch % batches
        for found in range(first, first + batches * steps, batches):
            if (found - self._begin) % steps == 0:
                return found
        raise SamplerError(
            f"optimizer steps of {steps} batches from batch {self._begin} on never begin with a "
            f"window of {window} samples; resume from a state that was saved after a step"
        )
