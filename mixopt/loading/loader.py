"""MixtureLoader: prefetched batches for a training loop, with weights that can change.

By default one thread prefetches, because worker processes cost more than they gain for mapped
tokens; prefetched batches are dropped when weights change, so that changes apply to the next batch.
Worker processes are for samples that need decoding or tokenising; then changes apply after the
requested batches. torch is imported only for tensors and worker processes.

Shapes: B samples, D domains.
"""

import importlib.util
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.dataset import Batch, Collate, MixtureDataset, TokenCounts, label, stack_samples
from mixopt.sampling import MixtureSampler, Weights, at_least, deal_to_rank
from mixopt.system import AnyArray, IntArray, PlainDict, PlainMapping, int_array

_CHUNK_BYTES = 1 << 20  # of tokens that the thread reads at once
_CHUNK_BATCHES = 64  # at most, that the thread reads at once


class MixtureLoader:
    """Iterates over the batches of one rank; its state is that of the received batches.

    Attributes:
        dataset: The samples.
        sampler: Their order.
        collate: Collates samples; None stacks arrays of equal shape.
    """

    def __init__(
        self,
        dataset: MixtureDataset,
        sampler: MixtureSampler,
        *,
        workers: int = 0,
        prefetch: int = 2,
        collate: Collate | None = None,
        output: Literal["torch", "numpy"] = "torch",
        accumulation: int | None = None,
    ) -> None:
        """Connect a dataset and a sampler.

        Args:
            dataset: The samples.
            sampler: Order and weights of the samples.
            workers: Processes that read samples; 0 for a thread.
            prefetch: Prefetched batches of each worker; without workers, pieces of about 1 MiB (at
                least a batch) that a thread prefetches; 0 for no thread.
            collate: Collates samples of domains that are not token shards; by default stacks arrays
                of equal shape.
            output: Tensors (tokens as int64), or numpy arrays as stored.
            accumulation: Global batches in an optimizer step: changes of weights apply at the first
                batch of a step. The Trainer and the online driver set it themselves.

        Raises:
            SamplerError: The dataset's domains or sizes are not the sampler's, or workers without
                `prefetch`.
        """
        if tuple(dataset.sizes.items()) != tuple(sampler.sizes.items()):
            raise SamplerError(
                f"the dataset has domains {dataset.sizes}, the sampler {dict(sampler.sizes)}; build"
                " it with MixtureSampler(dataset.sizes, ...)"
            )
        if output not in {"torch", "numpy"}:
            raise SamplerError(f"output={output!r}; it is 'torch' or 'numpy'")
        if (output == "torch" or workers) and importlib.util.find_spec("torch") is None:
            raise SamplerError(
                "tensors and worker processes need torch: pip install torch, or output='numpy' and"
                " workers=0"
            )
        self.dataset = dataset
        self.sampler = sampler
        self.workers = at_least(0, "workers", workers)
        self.prefetch = at_least(1 if workers else 0, "prefetch", prefetch)
        self.collate = collate
        self._finish = _as_tensors if output == "torch" else dict
        self._counted_D = np.zeros(len(sampler.domains), np.int64)  # in the sampler's unit
        self._accumulation = accumulation
        if accumulation is not None:
            sampler.accumulate(accumulation)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        sampler = self.sampler
        last = sampler.pass_end
        order = sampler.order
        first = sampler.batch  # read in this order
        ahead: Generator[Batch] | None = None
        self._handed_out = 0
        try:
            while last is None or sampler.batch < last:
                batch = sampler.batch
                if ahead is None:
                    ahead = self._fetch(batch, last)
                elif order is not sampler.order and not self.workers:
                    # Batches requested from workers keep their weights; others are read again.
                    ahead.close()
                    ahead = self._fetch(batch, last, later=batch - first == 1)
                    order = sampler.order
                    first = batch
                content = next(ahead, None)
                if content is None:
                    return
                self._count(content)
                sampler.received(batch + 1, handed_out=self._handed_out)
                yield label(self._finish(content), sampler, batch)
        finally:
            if ahead is not None:
                ahead.close()
            sampler.received(sampler.batch)

    @property
    def columns(self) -> set[str]:
        """Columns of the domains."""
        return set(chain.from_iterable(self.dataset.columns.values()))

    def realised(self) -> dict[str, float]:
        """Return each domain's share of the received tokens, or of those with loss if unit says so.

        Returns:
            Shares over all ranks since the start of the stream if they follow from the order (rows
            of one length, or lengths known to the sampler); else of this rank since the loader was
            created. Empty before the first batch.
        """
        sampler = self.sampler
        counted_D = self._counted_D
        if sampler.unit != "samples" or self.dataset.is_uniform:
            counted_D = int_array(list(sampler.tokens().values()))
        total = int(counted_D.sum())
        if total == 0:
            return {}
        pairs = zip(sampler.domains, counted_D.tolist(), strict=True)
        return {name: count / total for name, count in pairs}

    def set_weights(self, weights: Weights, batch: int | None = None) -> int:
        """Change the weights; return the first batch to which they apply.

        That is the next batch; with worker processes the first one not requested yet, after
        `prefetch` times `workers` batches; with `accumulation` the next first batch of a step.
        """
        return self.sampler.set_weights(weights, batch)

    def accumulate(self, batches: int) -> None:
        """Align changes of weights with optimizer steps, for trainers.

        Raises:
            SamplerError: The loader has another `accumulation`.
        """
        if self._accumulation not in {None, batches}:
            raise SamplerError(
                f"MixtureLoader(accumulation={self._accumulation}), but the trainer accumulates "
                f"gradients over {batches} batches; they must be equal"
            )
        self.sampler.accumulate(batches)

    def state_dict(self, *, consumed: int | None = None) -> PlainDict:
        """Return the state after the received batches: small, global, with all known changes.

        Args:
            consumed: Global batches that were trained on, for a loop that fetches a batch before it
                has trained on the last one.

        Raises:
            SamplerError: More than were received, or before the point of the last resume.
        """
        if consumed is None:
            return self.sampler.state_dict()
        if at_least(0, "consumed", consumed) > self.sampler.batch:
            raise SamplerError(
                f"state_dict(consumed={consumed}): the loop has received {self.sampler.batch}"
                " batches of the stream; give how many of them it has trained on,"
                " batch['batch'] + 1 of the last"
            )
        return self.sampler.state_at(consumed)

    def load_state_dict(self, state: PlainMapping) -> None:
        """Resume from a state; the next iteration starts there."""
        self.sampler.load_state_dict(state)

    def _fetch(self, batch: int, last: int | None, *, later: bool = False) -> Generator[Batch]:
        """Start reading; `later`: prefetch only from the second chunk on."""
        dataset = self.dataset
        collate = self.collate or stack_samples
        read = dataset.read if dataset.is_tokens else partial(dataset.collated, collate=collate)
        if self.workers:
            rows = self._counted(self._rows(batch, last, max_batches=1), batch)
            return in_processes(read, rows, self.workers, self.prefetch)
        read_many = dataset.read_many if dataset.is_tokens else partial(map, read)
        chunks = map(read_many, self._rows(batch, last, max_batches=self._chunk_batches()))
        if self.prefetch:
            return in_thread(chunks, self.prefetch, later=later)
        return _flattened(chunks)

    def _counted(self, rows: Iterator[IntArray], first: int) -> Iterator[IntArray]:
        """Yield the rows of each batch, and count requested batches."""
        for number, batch_rows in enumerate(chain.from_iterable(rows), first + 1):
            self._handed_out = number
            yield batch_rows

    def _rows(self, batch: int, last: int | None, max_batches: int) -> Iterator[IntArray]:
        """Yield this rank's rows in chunks that grow from one batch to `max_batches`."""
        while last is None or batch < last:
            count = max_batches if last is None else min(max_batches, last - batch)
            chunk = self.sampler.batch_rows(batch, count)
            if not len(chunk):
                return
            yield deal_to_rank(chunk, self.sampler.rank, self.sampler.world_size)
            batch += len(chunk)

    def _count(self, content: Batch) -> None:
        """Replace the tokens of a batch's samples by those of its domains, and add them up."""
        sampler = self.sampler
        domain = content["domain"]
        if self.dataset.is_uniform:
            lengths_B = np.full(len(domain), self.dataset.length, np.int64)
            counts = TokenCounts(lengths_B, lengths_B)
        elif "tokens" in content:
            counts = TokenCounts(content["tokens"], content["supervised"])
        else:
            return
        if sampler.unit != "samples":
            self._check_lengths(counts, domain, content["row"])
        by_domain = counts.by_domain(domain, len(sampler.domains))
        content["tokens"] = by_domain.tokens_B
        content["supervised"] = by_domain.supervised_B
        self._counted_D = self._counted_D + by_domain.of(sampler.unit)

    def _check_lengths(self, counts: TokenCounts, domain_B: IntArray, row_B: IntArray) -> None:
        """Check that samples have the lengths by which the sampler ordered them."""
        sampler = self.sampler
        layout = sampler.order.layout
        counted_B = counts.of(sampler.unit)
        for d in np.unique(domain_B).tolist():
            places = np.flatnonzero(domain_B == d)
            expected = np.broadcast_to(layout.lengths[d], layout.sizes[d])[row_B[places]]
            wrong = np.flatnonzero(expected != counted_B[places])
            if len(wrong):
                k = places[wrong[0]]
                kind = " that carry loss" if sampler.unit == "supervised" else ""
                raise SamplerError(
                    f"lengths: domain {sampler.domains[d]!r}, row {row_B[k]}: has {counted_B[k]}"
                    f" tokens{kind}, but lengths has {expected[wrong[0]]}; count them again"
                )

    def _chunk_batches(self) -> int:
        if not self.dataset.is_tokens or self.dataset.document_end is not None:
            return 1
        row = (self.dataset.length or 1) * self.dataset.itemsize
        return max(1, min(_CHUNK_BYTES // (row * self.sampler.rank_batch), _CHUNK_BATCHES))


def _as_tensors(batch: Batch) -> Batch:
    """Return tensors, with signed tokens for embeddings."""
    import torch

    tensors: Batch = {}
    for name, value in batch.items():
        if isinstance(value, np.ndarray):
            tensors[name] = torch.from_numpy(_signed(value))
    return batch | tensors


def _signed(values: AnyArray) -> AnyArray:
    if values.dtype.kind == "u":
        return values.astype(np.int64)
    return np.ascontiguousarray(values)


def _flattened(chunks: Iterator[Iterator[Batch]]) -> Generator[Batch]:
    for chunk in chunks:
        yield from chunk


def in_thread(chunks: Iterator[Iterator[Batch]], depth: int, *, later: bool) -> Generator[Batch]:
    """Read in a thread that prefetches up to `depth` chunks; `later`: from the second on."""
    if later:
        yield from next(chunks, ())

    def read() -> deque[Batch] | None:
        chunk = next(chunks, None)
        return None if chunk is None else deque(chunk)

    thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        waiting = deque(thread.submit(read) for _ in range(depth))
        while (chunk := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(read))
            while chunk:
                yield chunk.popleft()
    finally:
        thread.shutdown(cancel_futures=True)


def in_processes(
    read: Callable[[IntArray], Batch], rows: Iterator[IntArray], workers: int, prefetch: int
) -> Generator[Batch]:
    """Read batches in worker processes by torch's DataLoader, which requests rows ahead."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        _BatchReader(read),  # type: ignore[arg-type]
        sampler=rows,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=prefetch,
        collate_fn=dict,
    )
    yield from loader


class _BatchReader:
    """A dataset whose samples are whole batches."""

    def __init__(self, read: Callable[[IntArray], Batch]) -> None:
        self._read = read

    def __getitem__(self, rows: IntArray) -> Batch:
        return self._read(rows)
