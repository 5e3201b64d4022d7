"""MixtureSampler: the rows that one rank trains on, batch by batch, for any training loop.

It hands out this rank's part of each global batch as integers into the concatenation of the
domains, so it is a batch sampler for torch's DataLoader; torch is not imported. It runs in the
main process, and weights can be changed between two batches of a running job.

Shapes: D domains, B samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.order import (
    UNIT,
    OrderLayout,
    Place,
    SampleOrder,
    ShareChange,
    Unit,
    spread,
    whole_shares,
)
from mixopt.sampling.ranks import refuse_second_split, this_part
from mixopt.sampling.sampler_input import (
    Lengths,
    Policy,
    Scheduled,
    Sizes,
    Weights,
    at_least,
    mixture_over,
    named_sizes,
    rank_batch,
    rows_allowed,
    sample_lengths,
    scheduled_mixtures,
)
from mixopt.sampling.sampler_state import read_state, write_state
from mixopt.sampling.schedule import Schedule
from mixopt.sampling.token_order import TokenOrder
from mixopt.system import IntArray

_BLOCK = 1 << 14  # samples that are laid out at once


@dataclass(frozen=True)
class LogEntry:
    """Weights of the stream and the batch from which they apply.

    Attributes:
        batch: The global batch with which (where a domain ran out: in which) they begin to hold.
        mixture: Shares of tokens.
        reason: `start`, `set`, or `exhausted: DOMAIN`.
        end_batch: The batch from which the end of a ramp holds, to which shares go linearly.
        end_mixture: Shares of tokens there.
    """

    batch: int
    mixture: Mixture
    reason: str
    end_batch: int | None = None
    end_mixture: Mixture | None = None


class MixtureSampler:
    """Yield this rank's rows of each global batch; weights can change between batches.

    Attributes:
        batch_size: Samples of a global batch, over all ranks.
        batches: Global batches of one pass; None without passes.
        rank: This process along data parallelism.
        world_size: How many there are.
        rank_batch: Samples of one rank in a global batch.
        order: The order of samples with the weights as they are known now; another object once
            weights change. For loaders.

    Examples:
        >>> sizes, weights = {"code": 100, "prose": 50}, {"code": 0.25, "prose": 0.75}
        >>> sampler = MixtureSampler(sizes, weights, batch_size=8, rank=0, world_size=1)
        >>> rows = next(iter(sampler))
        >>> sum(row < 100 for row in rows), sum(row >= 100 for row in rows)
        (2, 6)
    """

    order: SampleOrder
    _block: tuple[SampleOrder, int, IntArray]  # rows of batches from one on, of an order
    _ahead: int  # windows to lay out next

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
                pass continues where it ended. Without it the stream ends when its data do.
            schedule: Weights that are known beforehand, with the batch from which they hold:
                `(batch, weights)`, or `(batch, weights, end_batch, end_weights)` for shares that go
                linearly up to another batch. Or a Schedule in place of `weights`, `batch_size` and
                `batches`.
            max_epochs: How often a domain may be drawn through, for all or by domain; 1 if
                `exhausted` alone is given.
            exhausted: What happens then: its share goes to the others ('redistribute', what
                `max_epochs` alone means) or the stream ends ('stop').
            unit: What a domain is owed: `samples`, where all have one length; `tokens`, where they
                differ; or `supervised`, the tokens that carry loss.
            lengths: Tokens (or those that carry loss) of each sample, for such a unit: an array of
                each domain, shape (rows,), or one number.

        Raises:
            SamplerError: A setting that cannot be right.
            MixtureError: Weights that are not a mixture of these domains.
        """
        named = named_sizes(sizes)
        if isinstance(schedule, Schedule):
            later, batch_size, batches = _of_schedule(schedule, weights, batch_size, batches)
            entries: Sequence[Scheduled] = []
        elif weights is None or batch_size is None:
            missing = "weights" if weights is None else "batch_size"
            raise SamplerError(f"a sampler needs {missing}, or schedule=Schedule(...)")
        else:
            entries, later = [(0, weights)], schedule
        self.rank, self.world_size = this_part(rank, world_size, mesh)
        self.rank_batch = rank_batch(batch_size, self.world_size)
        self.batch_size = int(batch_size)
        self.batches = None if batches is None else at_least(1, "batches", batches)
        layout = OrderLayout(
            names=tuple(named),
            sizes=tuple(named.values()),
            seed=seed,
            window_size=self.batch_size,
            limits=rows_allowed(max_epochs, exhausted, named),
            stops=exhausted == "stop",
            unit=unit,
            lengths=sample_lengths(unit, lengths, named),
        )
        self._mixtures: dict[tuple[int, ...], Mixture] = {}
        self._accumulation = 1
        changes: list[ShareChange] = []
        given = chain(scheduled_mixtures(entries, named), scheduled_mixtures(later, named))
        for batch, first, end, last in given:
            change = ShareChange(batch, self._shares(first), end, self._shares(last))
            changes = _with(changes, change)
        kind = SampleOrder if unit == "samples" else TokenOrder
        self._use(kind(layout, changes, layout.start()), 0)

    def __iter__(self) -> Iterator[list[int]]:
        last, first = self.pass_end, self.rank * self.rank_batch
        while last is None or self._batch < last:
            rows = self.batch_rows(self._batch)
            if not len(rows):
                return
            self.received(self._batch + 1)
            yield rows[0, first : first + self.rank_batch].tolist()

    def batch_rows(self, batch: int, most: int = 1) -> IntArray:
        """Return rows of some batches over all ranks, with the weights as they are known now.

        They are laid out some at a time: the first time one window, then more at once, so that a
        change of weights throws little away. A batch may be several windows or a part of one, in
        a stream that resumed with another size of batch.

        Args:
            batch: The first of them.
            most: How many at the most.

        Returns:
            Shape (batches, B), at least one batch; none where the stream has ended.
        """
        order, (known, first, block) = self.order, self._block  # a thread of the loader's asks
        if order is not known or not first <= batch < first + len(block):
            size, layout = self.batch_size, order.layout
            window, begin = divmod(batch * size, layout.window_size)
            ahead = self._ahead if order is known else 1
            least = -(-(begin + size) // layout.window_size)
            rows = order.rows(window, max(least, ahead)).ravel()[begin:]
            block = rows[: len(rows) // size * size].reshape(-1, size)
            self._block, first = (order, batch, block), batch
            limit = max(_BLOCK, 64 * len(layout.sizes)) // layout.window_size
            self._ahead = min(ahead * 4, max(limit, 1))
        return block[batch - first : batch - first + most]

    def __len__(self) -> int:
        if self.batches is not None:
            return self.batches
        end = self.order.end()
        if end is None:
            raise TypeError("the stream has no end: give MixtureSampler(batches=)")
        return end * self.order.layout.window_size // self.batch_size

    @property
    def sampler(self) -> NoReturn:
        """Raises AttributeError: accelerate looks for it before it splits batches.

        Raises:
            SamplerError: It would split them over ranks a second time.
            AttributeError: To all others.
        """
        raise refuse_second_split(self.world_size, "sampler")

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in order."""
        return self.order.layout.names

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each domain."""
        return dict(zip(self.domains, self.order.layout.sizes, strict=True))

    @property
    def unit(self) -> Unit:
        """What a domain is owed."""
        return self.order.layout.unit

    @property
    def batch(self) -> int:
        """The next global batch that the loop receives."""
        return self._batch

    @property
    def pass_end(self) -> int | None:
        """The batch at which the present pass ends; None for the end of the stream."""
        if self.batches is None:
            return None
        return (self._batch // self.batches + 1) * self.batches

    @property
    def log(self) -> list[LogEntry]:
        """The weights so far and those to come, and the domains that ran out so far."""
        entries = []
        for k, change in enumerate(self.order.changes):
            batch, end = self._batch_of(change.window), self._batch_of(change.end_window)
            reason, mixture = "set" if k else "start", self._mixture(change.shares)
            last = self._mixture(change.end_shares) if end > batch else None
            entries.append(LogEntry(batch, mixture, reason, end if last else None, last))
        out: list[int] = []
        for window, domain in self._place().out:
            out.append(domain)
            parts = self.order.change_at(window).parts(window, out)
            left = self._mixture(tuple(spread(parts, UNIT))) if any(parts) else entries[-1].mixture
            entries.append(
                LogEntry(self._batch_of(window), left, f"exhausted: {self.domains[domain]}")
            )
        return sorted(entries, key=lambda entry: entry.batch)

    def mixture_at(self, batch: int) -> Mixture:
        """Return the mixture that was set for a batch (shares of tokens); of a ramp, its middle."""
        window = self._window_of(batch)
        change = self.order.change_at(window)
        shares = change.arrived(window) or tuple(spread(change.parts(window), UNIT))
        return self._mixture(shares)

    def set_weights(self, weights: Weights, batch: int | None = None) -> int:
        """Change the weights from a global batch on; say the same on every rank.

        Args:
            weights: Share of the tokens of each domain.
            batch: The batch from which they hold; the next one that can change where not given.

        Returns:
            The batch from which they hold.

        Raises:
            SamplerError: The batch was handed out already, or begins no optimizer step.
            MixtureError: Weights that are not a mixture of these domains.
        """
        mixture = mixture_over(weights, self.sizes)
        batch = self._changing(batch)
        change = ShareChange.at(self._window_of(batch), self._shares(mixture))
        self.order = self.order.changed(_with(self.order.changes, change), change.window)
        return batch

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

    def counts(self, batch: int | None = None) -> dict[str, int]:
        """Count the samples before a batch by domain, over all ranks; the next if not given.

        Of a batch in the middle of a window of the stream, those before the window.
        """
        return dict(zip(self.domains, self._place(batch).counts_D.tolist(), strict=True))

    def tokens(self, batch: int | None = None) -> dict[str, int]:
        """Count the same in the sampler's unit."""
        return dict(zip(self.domains, self._place(batch).had_D.tolist(), strict=True))

    def received(self, batches: int, *, handed_out: int | None = None) -> None:
        """Note how far the loop is, for a loader that fetches ahead.

        Args:
            batches: Global batches that the loop has received since the start of the stream.
            handed_out: Batches that were given to worker processes; weights cannot change there.
        """
        self._batch = batches
        self._handed_out = max(batches, handed_out or 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state before the next batch: small, and the same on every rank."""
        return self.state_at(self._batch)

    def state_at(self, batch: int) -> dict[str, Any]:
        """Return the state before a batch, with all changes that are known.

        Raises:
            SamplerError: The stream begins after it or ends before it.
        """
        return write_state(self.order, self._place(batch), batch * self.batch_size)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, on any number of ranks.

        Args:
            state: What `state_dict` returned.

        Raises:
            SamplerError: The state is of another seed, other sizes, domains or settings (all are
                named), in the middle of a batch of this size, or damaged. Nothing is changed.
        """
        order, position = read_state(state, self.order)
        if position % self.batch_size:
            raise SamplerError(
                f"the state is at sample {position}, in the middle of a batch of"
                f" {self.batch_size}; use a batch_size that divides it"
            )
        self._use(order, position // self.batch_size)

    def _use(self, order: SampleOrder, batch: int) -> None:
        self.order, self._ahead = order, 1
        self._block = order, batch, np.empty((0, self.batch_size), np.int64)
        self._begin = batch
        self.received(batch)

    def _window_of(self, batch: int) -> int:
        return batch * self.batch_size // self.order.layout.window_size

    def _batch_of(self, window: int) -> int:
        return window * self.order.layout.window_size // self.batch_size

    def _place(self, batch: int | None = None) -> Place:
        batch = self._batch if batch is None else batch
        place = self.order.place(self._window_of(batch))
        if place is None:
            first = self._batch_of(self.order.start.window)
            raise SamplerError(f"the stream, known from batch {first} on, has no batch {batch}")
        return place

    def _changing(self, batch: int | None) -> int:
        """Return a batch from which weights can change; the first where none is given."""
        first = self._aligned(self._handed_out)
        batch = first if batch is None else batch
        if batch < self._handed_out:
            raise SamplerError(
                f"set_weights for batch {batch} comes too late: {self._handed_out} is the next;"
                f" the first that can change is {first}"
            )
        if self._aligned(batch) != batch:
            raise SamplerError(
                f"set_weights for batch {batch}: weights change where an optimizer step"
                f" (accumulation={self._accumulation}) and a window of the stream"
                f" ({self.order.layout.window_size} samples) begin; the first that can change is"
                f" {self._aligned(batch)}"
            )
        return batch

    def _aligned(self, batch: int) -> int:
        """Return the first batch from one on that begins an optimizer step and a window."""
        window, steps = self.order.layout.window_size, self._accumulation
        first = batch + (self._begin - batch) % steps
        for candidate in range(first, first + steps * window, steps):
            if candidate * self.batch_size % window == 0:
                return candidate
        raise SamplerError(
            f"optimizer steps of {steps} batches from batch {self._begin} on never begin with a"
            f" window of {window} samples; resume from a state that was saved after a step"
        )

    def _shares(self, mixture: Mixture) -> tuple[int, ...]:
        shares = whole_shares(mixture.array.tolist())
        self._mixtures[shares] = mixture
        return shares

    def _mixture(self, shares: tuple[int, ...]) -> Mixture:
        """Return shares as the mixture that was given, or as they are."""
        as_they_are = [share / UNIT for share in shares]
        return self._mixtures.get(shares) or Mixture.from_array(self.domains, as_they_are)


def _of_schedule(
    schedule: Schedule, weights: Weights | None, batch_size: int | None, batches: int | None
) -> tuple[Sequence[Scheduled], int, int]:
    """Return the entries of a schedule, and the sizes of a batch and of the run."""
    if weights is not None:
        raise SamplerError("a schedule has the weights: leave out weights, or give a list of later")
    own = {"batch_size": (batch_size, schedule.batch), "batches": (batches, schedule.steps)}
    for name, (given, here) in own.items():
        if given not in {None, here}:
            raise SamplerError(f"{name} {given} differs from the schedule's, {here}; leave it out")
    return schedule.entries, schedule.batch, schedule.steps


def _with(changes: Sequence[ShareChange], change: ShareChange) -> list[ShareChange]:
    """Return changes in order with one more, in the place of the one that has its window."""
    others = [one for one in changes if one.window != change.window]
    return sorted([*others, change], key=lambda one: one.window)
