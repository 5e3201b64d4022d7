"""MixtureSampler: the rows that one rank trains on, batch by batch, for any training loop.

It hands out this rank's part of each global batch as integers into the concatenation of the
domains, so it is a batch sampler for torch's DataLoader; torch is not imported. It runs in the
main process, and weights can be changed between two batches of a running job.

Shapes: D domains, B samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.batch_rows import BatchRows
from mixopt.sampling.order_posts import OrderPosts
from mixopt.sampling.process_rank import this_part
from mixopt.sampling.rank_agreement import check_now_and_then, order_fingerprint
from mixopt.sampling.sample_lengths import Lengths, SampleLengths, Unit, checked_unit
from mixopt.sampling.sample_order import SampleOrder, StreamLayout
from mixopt.sampling.sampler_input import (
    Policy,
    Sizes,
    Weights,
    at_least,
    epoch_limits,
    mixture_over,
    named_sizes,
    rank_batch,
    row_chunks,
    rows_allowed,
    token_lengths,
)
from mixopt.sampling.sampler_log import LogEntry, read_log
from mixopt.sampling.sampler_state import read_state, write_state
from mixopt.sampling.schedule import Schedule
from mixopt.sampling.schedule_input import given_mixtures
from mixopt.sampling.scheduled_changes import Scheduled, scheduled_changes
from mixopt.sampling.second_split import refuse_second_split
from mixopt.sampling.stream_spec import MixtureChange, StreamSpec
from mixopt.sampling.token_order import KEPT, TokenBatches, TokenOrder
from mixopt.sampling.token_state import read_token_state, write_token_state
from mixopt.system import IntArray

_FAR = 1 << 50


class MixtureSampler:
    """Yield this rank's rows of each global batch; weights can change between batches."""

    def __init__(
        self,
        sizes: Sizes,
        weights: Weights | None = None,
        *,
        batch_size: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        mesh: Any = None,
        batches: int | None = None,
        schedule: Schedule | Sequence[Scheduled] = (),
        max_epochs: float | Mapping[str, float] | None = None,
        exhausted: Policy | None = None,
        tokens_per_sample: Mapping[str, float] | None = None,
        chunks: tuple[int, int] | None = None,
        unit: Unit = "samples",
        lengths: Lengths | None = None,
    ) -> None:
        """Lay out the stream.

        Args:
            sizes: Rows of each domain.
            weights: Share of the tokens of each domain (of those that carry loss, with
                `unit="supervised"`).
            batch_size: Samples of a global batch, over all ranks.
            seed: Of the order of rows and the shuffle inside a batch.
            rank: This process along data parallelism; from torch.distributed or RANK where not
                given.
            world_size: How many there are; given with `rank`.
            mesh: Instead of the two a torch DeviceMesh, whose data-parallel dimensions say them.
            batches: Global batches of one pass of the loop, which is what `len` says; the next
                pass goes on where it ended. Without it the stream ends when its data do.
            schedule: Weights that are known beforehand, with the batch from which they hold:
                `(batch, weights)`, or `(batch, weights, end_batch, end_weights)` for shares that go
                linearly up to another batch. Or a Schedule in place of `weights`, `batch_size` and
                `batches`.
            max_epochs: How often a domain may be drawn through, for all or by domain; 1 if
                `exhausted` alone is given.
            exhausted: What happens then: its share goes to the others ('redistribute', what
                `max_epochs` alone means) or the stream ends ('stop'); 'repeat' has no limit.
            tokens_per_sample: Mean length of a sample of each domain, where they differ.
            chunks: For storage that is slow to seek: rows of a chunk, and chunks that rows are
                shuffled over. Without it a domain's rows are shuffled as a whole.
            unit: What a domain is owed: `samples`, where all have one length (or the mean that
                `tokens_per_sample` says); `tokens`, where they differ; or `supervised`, the tokens
                that carry loss. With the latter two the order is sequential: it goes on from a
                state, but no later position can be asked for.
            lengths: Tokens (or those that carry loss) of each sample, for such a unit: an array of
                each domain, shape (rows,), or one number. Those of a domain that is left out are
                learned as MixtureLoader delivers them.

        Raises:
            SamplerError: A setting that cannot be right.
            MixtureError: Weights that are not a mixture of these domains.
        """
        named = named_sizes(sizes)
        given = given_mixtures(weights, batch_size, batches, schedule)
        weights, batch_size, batches, schedule = given
        part = this_part(rank, world_size, mesh)
        self.rank, self.world_size = part.rank, part.world_size
        self.posts = OrderPosts(part)
        self.batch_size = batch_size
        self.batches = None if batches is None else at_least(1, "batches", batches)
        self._per_rank = rank_batch(batch_size, self.world_size)
        policy: Policy = exhausted or ("repeat" if max_epochs is None else "redistribute")
        epochs = epoch_limits(max_epochs, policy, named)
        allowed = [rows_allowed(e, rows) for e, rows in zip(epochs, named.values(), strict=True)]
        layout = StreamLayout(
            names=tuple(named),
            sizes=tuple(named.values()),
            seed=seed,
            window=batch_size,
            limits=tuple(allowed),
            stops=policy == "stop",
            chunks=None if chunks is None else row_chunks(chunks),
        )
        self.unit = checked_unit(unit)
        self.lengths = SampleLengths(named, lengths)
        _check_unit(self.unit, tokens_per_sample, lengths)
        means = token_lengths(tokens_per_sample, named)
        known = scheduled_changes(schedule, batch_size, named)
        stream = StreamSpec.over(layout, means, mixture_over(weights, named), known)
        self._accumulation = 1
        self._use(stream, batch=0)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of this rank, from the next batch to the end of the pass.

        Raises:
            SamplerError: Within 100 batches of it, where ranks have come to have other orders.
        """
        last = self.pass_end
        while (last is None or self._batch < last) and self.has(self._batch):
            rows = self.rows(self._batch)
            self.received(self._batch + 1)
            check_now_and_then(self)
            yield rows.tolist()

    def __len__(self) -> int:
        """Count the global batches of one pass.

        Raises:
            TypeError: The stream has no end.
        """
        if self.batches is not None:
            return self.batches
        end = _FAR if isinstance(self._order, TokenOrder) else self._order.reach(_FAR)
        if end == _FAR:
            raise TypeError("the stream has no end: give MixtureSampler(batches=)")
        return end // self.batch_size

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
                f"with unit={self.unit!r} the order is sequential, and no position can be asked for"
                " on its own; iterate, or use global_rows(batch) near the next batch"
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
    def fingerprint(self) -> str:
        """A hash of all that the order from the next batch on follows from, alike on all ranks."""
        return order_fingerprint(self)

    @property
    def is_sequential(self) -> bool:
        """Whether the order is by tokens, so that no position is known before those before it."""
        return self.unit != "samples"

    @property
    def rank_batch(self) -> int:
        """Samples of one rank in a global batch."""
        return self._per_rank

    @property
    def pass_end(self) -> int | None:
        """The batch at which the present pass ends; None for the end of the stream."""
        if self.batches is None:
            return None
        return (self._batch // self.batches + 1) * self.batches

    def settle(self, batch: int, tokens_D: Sequence[int]) -> None:
        """Say how many tokens a batch had of each domain, where lengths are learned.

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

    @property
    def sampler(self) -> NoReturn:
        """There is none of single rows, for accelerate, which asks before it splits batches.

        Raises:
            SamplerError: It would split them over ranks a second time.
            AttributeError: To all others.
        """
        raise refuse_second_split(self.world_size, "sampler")

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
        first = self._aligned(self._handed_out)
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
        self._change(batch * self.batch_size, mixture)
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

    def rows(self, batch: int) -> IntArray:
        """Return this rank's rows of a batch, as integers into the concatenated domains."""
        start = self.rank * self._per_rank
        return self.global_rows(batch)[start : start + self._per_rank]

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
        """Go on from a state, on any number of ranks.

        Args:
            state: What `state_dict` returned.
            map_domains: For domains that were changed on purpose: the state's name to the name
                here, or to None for one that is gone. Domains that the state does not have start
                anew, and the weights of this sampler hold from here on.

        Raises:
            SamplerError: The state is of another seed, other sizes, domains or settings (all are
                named), in the middle of a batch of this size, or damaged. Nothing is changed.
        """
        self._use(*self._read(state, map_domains))

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check a state as `load_state_dict` does, without loading it.

        Raises:
            SamplerError: It cannot be gone on from.
        """
        self._read(state, None)

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
        self._stream, self._order = stream, self._ordered(stream)
        self._begin = batch
        self.received(batch)
        self.posts.begin()
        self._rows = self.reader()

    def _ordered(self, stream: StreamSpec) -> SampleOrder | TokenOrder:
        if self.is_sequential:
            return TokenOrder(stream.layout, self.lengths, stream.changes, stream.origin)
        return SampleOrder(stream.layout, stream.changes, stream.origin)

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
            f"optimizer steps of {steps} batches from batch {self._begin} on never begin with a"
            f" window of {window} samples; go on from a state that was saved after a step"
        )


def _check_unit(
    unit: Unit, tokens_per_sample: Mapping[str, float] | None, lengths: Lengths | None
) -> None:
    if unit == "samples" and lengths is not None:
        raise SamplerError(
            "lengths are given and unit='samples' has no use for them: say unit='tokens'"
        )
    if unit != "samples" and tokens_per_sample is not None:
        raise SamplerError(
            f"tokens_per_sample with unit={unit!r}: lengths says how long each sample is; leave"
            " out tokens_per_sample"
        )
