"""MixtureSampler: the rows that one rank trains on, batch by batch, for any training loop.

It hands out this rank's part of each global batch as integers into the concatenation of the
domains, so it is a batch sampler for torch's DataLoader; torch is not imported. It runs in the
main process, and weights can be changed between two batches of a running job.

Shapes: D domains, B samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from mixopt.errors import SamplerError
from mixopt.sampling.global_batches import GlobalBatches
from mixopt.sampling.order_posts import OrderPosts
from mixopt.sampling.process_rank import this_part
from mixopt.sampling.rank_agreement import check_now_and_then, order_fingerprint
from mixopt.sampling.sample_lengths import Lengths, SampleLengths, Unit, checked_unit
from mixopt.sampling.sample_order import StreamLayout
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
from mixopt.sampling.schedule import Schedule
from mixopt.sampling.schedule_input import given_mixtures
from mixopt.sampling.scheduled_changes import Scheduled, scheduled_changes
from mixopt.sampling.second_split import refuse_second_split
from mixopt.sampling.stream_spec import StreamSpec
from mixopt.sampling.token_order import TokenOrder
from mixopt.system import IntArray

_FAR = 1 << 50


class MixtureSampler(GlobalBatches):
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
                pass continues where it ended. Without it the stream ends when its data do.
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
                that carry loss. With the latter two the order is sequential: it continues from a
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
        _check_unit(checked_unit(unit), tokens_per_sample, lengths)
        means = token_lengths(tokens_per_sample, named)
        known = scheduled_changes(schedule, batch_size, named)
        stream = StreamSpec.over(layout, means, mixture_over(weights, named), known)
        batches = None if batches is None else at_least(1, "batches", batches)
        super().__init__(stream, batch_size, batches, unit, SampleLengths(named, lengths))

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
    def fingerprint(self) -> str:
        """A hash of all that determines the order from the next batch on; equal on all ranks."""
        return order_fingerprint(self)

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

    @property
    def sampler(self) -> NoReturn:
        """Raises AttributeError: accelerate looks for it before it splits batches.

        Raises:
            SamplerError: It would split them over ranks a second time.
            AttributeError: To all others.
        """
        raise refuse_second_split(self.world_size, "sampler")

    def rows(self, batch: int) -> IntArray:
        """Return this rank's rows of a batch, as integers into the concatenated domains."""
        start = self.rank * self._per_rank
        return self.global_rows(batch)[start : start + self._per_rank]

    def _use(self, stream: StreamSpec, batch: int) -> None:
        super()._use(stream, batch)
        self.posts.begin()


def _check_unit(
    unit: Unit, tokens_per_sample: Mapping[str, float] | None, lengths: Lengths | None
) -> None:
    if unit == "samples" and lengths is not None:
        raise SamplerError(
            "lengths are given, but unit='samples' does not use them: set unit='tokens'"
        )
    if unit != "samples" and tokens_per_sample is not None:
        raise SamplerError(
            f"tokens_per_sample with unit={unit!r}: lengths gives the length of each sample; "
            "leave out tokens_per_sample"
        )
