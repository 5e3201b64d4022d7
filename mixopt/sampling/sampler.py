"""MixtureSampler: a batch sampler that yields the rows of one rank, for any training loop.

Rows are indices into the concatenation of the domains, so torch's DataLoader takes it as its batch
sampler; torch is not imported. The sampler runs in the main process, and weights can change
between two batches of a running job.

Shapes: D domains, B samples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mixopt.errors import SamplerError
from mixopt.mixture import Mixture
from mixopt.sampling.batch_reader import BatchReader
from mixopt.sampling.order import OrderLayout, Place, SampleOrder, Unit
from mixopt.sampling.ranks import (
    data_parallel_rank,
    deal_to_rank,
    refuse_second_split,
    samples_per_rank,
)
from mixopt.sampling.sampler_input import (
    Lengths,
    Policy,
    Scheduled,
    Sizes,
    Weights,
    at_least,
    mixture_over,
    named_sizes,
    read_state,
    rows_allowed,
    sample_lengths,
    scheduled_mixtures,
    write_state,
)
from mixopt.sampling.schedule import Schedule
from mixopt.sampling.shares import UNIT, ShareChange, Shares, insert_change, spread, whole_shares
from mixopt.sampling.token_order import TokenOrder
from mixopt.system import IntArray, PlainDict, PlainMapping


@dataclass(frozen=True)
class LogEntry:
    """Weights of the stream and the batch from which they apply.

    Attributes:
        batch: First global batch with these weights; the batch in which a domain ran out.
        mixture: Shares of tokens.
        reason: `start`, `set`, or `exhausted: DOMAIN`.
        end_batch: First batch after a linear ramp; None for constant weights.
        end_mixture: Shares of tokens at the end of the ramp.
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
        rank: Data-parallel rank of this process.
        world_size: Number of data-parallel ranks.
        rank_batch: Samples of one rank in a global batch.
        order: The order of samples under the current weights, for loaders; a change of weights
            replaces the object.

    Examples:
        >>> sizes, weights = {"code": 100, "prose": 50}, {"code": 0.25, "prose": 0.75}
        >>> sampler = MixtureSampler(sizes, weights, batch_size=8, rank=0, world_size=1)
        >>> rows = next(iter(sampler))
        >>> sum(row < 100 for row in rows), sum(row >= 100 for row in rows)
        (2, 6)
    """

    order: SampleOrder

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
            weights: Share of the tokens of each domain; of its supervised tokens with
                `unit="supervised"`.
            batch_size: Samples of a global batch, over all ranks.
            seed: Seed of the order of rows and of the shuffle within a batch.
            rank: Data-parallel rank of this process; None: from torch.distributed or RANK.
            world_size: Number of data-parallel ranks; given with `rank`.
            mesh: A torch DeviceMesh, in place of `rank` and `world_size`: they are taken from its
                data-parallel dimensions.
            batches: Global batches of one pass of the loop, the value of `len`; the next pass
                continues after it. None: the stream ends with its data.
            schedule: Later weights, each with its first batch: `(batch, weights)`, or `(batch,
                weights, end_batch, end_weights)` for a linear ramp. Or a Schedule in place of
                `weights`, `batch_size` and `batches`.
            max_epochs: Maximum passes over a domain, one number or by domain; 1 if only
                `exhausted` is given.
            exhausted: At the maximum, the domain's share goes to the others ('redistribute', the
                default with `max_epochs`) or the stream ends ('stop').
            unit: Unit of the shares: `samples`, for samples of equal length; `tokens`, where
                lengths differ; or `supervised`, the tokens that carry loss.
            lengths: Tokens (or supervised tokens) of each sample, for the units `tokens` and
                `supervised`: an array for each domain, shape (rows,), or one number.

        Raises:
            SamplerError: An invalid setting.
            MixtureError: Weights that are not a mixture of these domains.
        """
        rows_by_domain = named_sizes(sizes)
        entries: Sequence[Scheduled]
        if isinstance(schedule, Schedule):
            _check_beside_schedule(schedule, weights, batch_size, batches)
            entries = schedule.entries
            batch_size = schedule.batch
            batches = schedule.steps
        elif weights is None or batch_size is None:
            missing = "weights" if weights is None else "batch_size"
            raise SamplerError(f"a sampler needs {missing}, or schedule=Schedule(...)")
        else:
            entries = [(0, weights), *schedule]
        self.rank, self.world_size = data_parallel_rank(rank, world_size, mesh)
        self.rank_batch = samples_per_rank(batch_size, self.world_size)
        self.batch_size = int(batch_size)
        self.batches = None if batches is None else at_least(1, "batches", batches)
        layout = OrderLayout(
            names=tuple(rows_by_domain),
            sizes=tuple(rows_by_domain.values()),
            seed=seed,
            window_size=self.batch_size,
            limits=rows_allowed(max_epochs, exhausted, rows_by_domain),
            stops=exhausted == "stop",
            unit=unit,
            lengths=sample_lengths(unit, lengths, rows_by_domain),
        )
        self._mixtures: dict[Shares, Mixture] = {}
        self._accumulation = 1
        changes: list[ShareChange] = []
        for entry in scheduled_mixtures(entries, rows_by_domain):
            change = ShareChange(
                window=entry.batch,
                shares=self._shares(entry.mixture),
                end_window=entry.end_batch,
                end_shares=self._shares(entry.end_mixture),
            )
            changes = insert_change(changes, change)
        order_class = SampleOrder if unit == "samples" else TokenOrder
        self._reset(order_class(layout, changes, layout.start()), 0)

    def __iter__(self) -> Iterator[list[int]]:
        end = self.pass_end
        while end is None or self._batch < end:
            rows_KB = self.batch_rows(self._batch)
            if not len(rows_KB):
                return
            self.received(self._batch + 1)
            yield deal_to_rank(rows_KB, self.rank, self.world_size)[0].tolist()

    def batch_rows(self, batch: int, most: int = 1) -> IntArray:
        """Return the rows of consecutive batches over all ranks, under the current weights.

        The first call lays out one window, later calls more at once, so that a change of weights
        discards little. In a stream that resumed with another batch size, a batch is several
        windows or part of one.

        Args:
            batch: The first batch.
            most: Maximum number of batches.

        Returns:
            Shape (batches, B), at least one batch; none at the end of the stream.
        """
        return self._reader.rows(self.order, batch, most)

    def __len__(self) -> int:
        if self.batches is not None:
            return self.batches
        end = self.order.end()
        if end is None:
            raise TypeError("the stream has no end: give MixtureSampler(batches=)")
        return end * self.order.layout.window_size // self.batch_size

    @property
    def sampler(self) -> NoReturn:
        """Always raise: accelerate looks up this attribute before it splits batches.

        Raises:
            SamplerError: accelerate would split the batches over ranks a second time.
            AttributeError: To all other callers.
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
        """Unit of the shares."""
        return self.order.layout.unit

    @property
    def batch(self) -> int:
        """The next global batch that the loop receives."""
        return self._batch

    @property
    def pass_end(self) -> int | None:
        """The batch at which the current pass ends; None for the end of the stream."""
        if self.batches is None:
            return None
        return (self._batch // self.batches + 1) * self.batches

    @property
    def log(self) -> list[LogEntry]:
        """Past and scheduled weights, and the domains that have run out."""
        changes = self.order.changes
        entries = [self._change_entry(changes[0], "start")]
        entries += [self._change_entry(change, "set") for change in changes[1:]]
        exhausted: list[int] = []
        for window, domain in self._place().exhausted:
            exhausted.append(domain)
            parts = self.order.change_at(window).parts(window, exhausted)
            mixture = entries[-1].mixture
            if any(parts):
                mixture = self._mixture(tuple(spread(parts, UNIT)))
            reason = f"exhausted: {self.domains[domain]}"
            entries.append(LogEntry(self._batch_of(window), mixture, reason))
        return sorted(entries, key=lambda entry: entry.batch)

    def _change_entry(self, change: ShareChange, reason: str) -> LogEntry:
        batch = self._batch_of(change.window)
        end_batch = self._batch_of(change.end_window)
        mixture = self._mixture(change.shares)
        if end_batch <= batch:
            return LogEntry(batch, mixture, reason)
        return LogEntry(batch, mixture, reason, end_batch, self._mixture(change.end_shares))

    def mixture_at(self, batch: int) -> Mixture:
        """Return the mixture set for a batch, in shares of tokens; on a ramp, at mid-batch."""
        window = self._window_of(batch)
        change = self.order.change_at(window)
        shares = change.constant_shares(window) or tuple(spread(change.parts(window), UNIT))
        return self._mixture(shares)

    def set_weights(self, weights: Weights, batch: int | None = None) -> int:
        """Change the weights from a global batch on; call it identically on every rank.

        Args:
            weights: Share of the tokens of each domain.
            batch: First batch with the new weights; None: the next batch that can change.

        Returns:
            The first batch with the new weights.

        Raises:
            SamplerError: The batch was already handed out, or does not begin an optimizer step.
            MixtureError: Weights that are not a mixture of these domains.
        """
        mixture = mixture_over(weights, self.sizes)
        batch = self._change_batch(batch)
        change = ShareChange.at(self._window_of(batch), self._shares(mixture))
        self.order = self.order.changed(insert_change(self.order.changes, change), change.window)
        return batch

    def accumulate(self, batches: int) -> None:
        """Restrict changes of weights to the first batch of an optimizer step.

        Steps count from the next batch, and from the batch at which a state is loaded.

        Args:
            batches: Global batches of an optimizer step, for a loop that accumulates gradients.

        Raises:
            SamplerError: Not a whole number >= 1, or a pass would end within a step.
        """
        batches = at_least(1, "accumulation", batches)
        if self.batches is not None and self.batches % batches:
            raise SamplerError(
                f"MixtureSampler(batches={self.batches}) with {batches} batches in an optimizer"
                " step: the last step of each pass would be cut short; give"
                f" batches={self.batches + -self.batches % batches}"
            )
        self._accumulation = batches
        self._begin = self._batch

    def counts(self, batch: int | None = None) -> dict[str, int]:
        """Count the samples of each domain before a batch (None: the next), over all ranks.

        For a batch inside a window of the stream, the samples before that window.
        """
        return dict(zip(self.domains, self._place(batch).counts_D.tolist(), strict=True))

    def tokens(self, batch: int | None = None) -> dict[str, int]:
        """Return the counts of `counts`, in the sampler's unit."""
        return dict(zip(self.domains, self._place(batch).had_D.tolist(), strict=True))

    def received(self, batches: int, *, handed_out: int | None = None) -> None:
        """Record the loop's progress, for a loader that prefetches.

        Args:
            batches: Global batches that the loop has received since the start of the stream.
            handed_out: Batches that workers have received; their weights can no longer change.
        """
        self._batch = batches
        self._handed_out = max(batches, handed_out or 0)

    def state_dict(self) -> PlainDict:
        """Return the state before the next batch: small, and the same on every rank."""
        return self.state_at(self._batch)

    def state_at(self, batch: int) -> PlainDict:
        """Return the state before a batch, with all known changes of weights.

        Raises:
            SamplerError: The stream begins after the batch or ends before it.
        """
        return write_state(self.order, self._place(batch), batch * self.batch_size)

    def load_state_dict(self, state: PlainMapping) -> None:
        """Resume from a state, on any number of ranks.

        Args:
            state: The return value of `state_dict`.

        Raises:
            SamplerError: The state has another seed, sizes, domains or settings (all are named),
                is inside a batch of this size, or is damaged. The sampler stays unchanged.
        """
        order, position = read_state(state, self.order)
        if position % self.batch_size:
            raise SamplerError(
                f"the state is at sample {position}, in the middle of a batch of"
                f" {self.batch_size}; use a batch_size that divides it"
            )
        self._reset(order, position // self.batch_size)

    def _reset(self, order: SampleOrder, batch: int) -> None:
        self.order = order
        self._reader = BatchReader(order, self.batch_size)
        self._begin = batch
        self.received(batch)

    def _window_of(self, batch: int) -> int:
        return batch * self.batch_size // self.order.layout.window_size

    def _batch_of(self, window: int) -> int:
        return window * self.order.layout.window_size // self.batch_size

    def _place(self, batch: int | None = None) -> Place:
        if batch is None:
            batch = self._batch
        place = self.order.place(self._window_of(batch))
        if place is None:
            first = self._batch_of(self.order.start.window)
            raise SamplerError(f"the stream, known from batch {first} on, has no batch {batch}")
        return place

    def _change_batch(self, batch: int | None) -> int:
        """Check that weights can change at a batch and return it; None: the first such batch."""
        first = self._aligned(self._handed_out)
        if batch is None:
            batch = first
        if batch < self._handed_out:
            raise SamplerError(
                f"set_weights for batch {batch} comes too late: {self._handed_out} is the next;"
                f" the first batch that can change is {first}"
            )
        if self._aligned(batch) != batch:
            raise SamplerError(
                f"set_weights for batch {batch}: weights change where an optimizer step"
                f" (accumulation={self._accumulation}) and a window of the stream"
                f" ({self.order.layout.window_size} samples) begin; the first batch that can change"
                f" is {self._aligned(batch)}"
            )
        return batch

    def _aligned(self, batch: int) -> int:
        """Return the first batch >= `batch` that begins an optimizer step and a window."""
        window_size = self.order.layout.window_size
        step = self._accumulation
        first = batch + (self._begin - batch) % step
        for candidate in range(first, first + step * window_size, step):
            if candidate * self.batch_size % window_size == 0:
                return candidate
        raise SamplerError(
            f"optimizer steps of {step} batches from batch {self._begin} on never begin with a"
            f" window of {window_size} samples; resume from a state that was saved after a step"
        )

    def _shares(self, mixture: Mixture) -> Shares:
        shares = whole_shares(mixture.array.tolist())
        self._mixtures[shares] = mixture
        return shares

    def _mixture(self, shares: Shares) -> Mixture:
        """Return the mixture given for these shares, or one built from them."""
        weights = [share / UNIT for share in shares]
        return self._mixtures.get(shares) or Mixture.from_array(self.domains, weights)


def _check_beside_schedule(
    schedule: Schedule, weights: Weights | None, batch_size: int | None, batches: int | None
) -> None:
    """Check the arguments that a Schedule contains: not given, or equal."""
    if weights is not None:
        fault = "a Schedule contains the weights: leave out weights, or pass schedule= a list"
        raise SamplerError(fault)
    _check_equal("batch_size", batch_size, schedule.batch)
    _check_equal("batches", batches, schedule.steps)


def _check_equal(name: str, value: int | None, scheduled: int) -> None:
    if value is not None and value != scheduled:
        raise SamplerError(f"{name} {value} differs from the schedule's {scheduled}; leave it out")
