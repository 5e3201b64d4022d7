"""MixtureStream: exact shares over domains that can only be streamed.

Which domain each global sample is from follows the same schedule as MixtureSampler's, so that all
ranks and workers together have exact shares. Its rows come from streams: `datasets` from the hub,
or any iterable. Each rank and worker reads its own part of them, so another number of ranks or
workers gives other rows; use MixtureSampler where there is an index.

This module needs torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from mixopt.errors import SamplerError
from mixopt.loading.collate import Batch, stack_samples
from mixopt.loading.row_sources import check_is_one
from mixopt.loading.stream_rows import DomainRows, Packing, Reader, RowFormat
from mixopt.sampling import (
    MixtureSampler,
    Weights,
    at_least,
    check_now_and_then,
    refuse_second_split,
)
from mixopt.system import StateFields

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise SamplerError("MixtureStream needs torch: pip install torch") from error

UNKNOWN_SIZE = 1 << 50  # rows of a stream, for a sampler: more than are ever read
_FORMAT = "mixopt-stream/1"


class MixtureStream(IterableDataset[Batch]):
    """Yield this rank's batches; give it to a DataLoader with `batch_size=None`."""

    def __init__(
        self,
        sources: Mapping[str, Any],
        weights: Weights,
        *,
        batch_size: int,
        length: int | None = None,
        packing: Packing = "cut",
        tokenize: Callable[[Any], Any] | None = None,
        padding: int = 0,
        buffer: int = 1000,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        mesh: Any = None,
        batches: int | None = None,
        schedule: Sequence[tuple[int, Weights]] = (),
        collate: Callable[[Sequence[Any]], Batch] | None = None,
    ) -> None:
        """Join the streams.

        Args:
            sources: For each domain a streaming `datasets.IterableDataset`, an iterable of
                documents, or a function that returns one.
            weights: Share of the samples of each domain (of the tokens, with `length`).
            batch_size: Samples of a global batch, over all ranks.
            length: Tokens of a row that documents are packed into; None where documents are rows.
            packing: `cut` their concatenation, or `best_fit` whole documents and pad.
            tokenize: Turns a document into tokens that end with the end-of-document id.
            padding: Token id where a row is not full.
            buffer: Documents that are read, packed and shuffled together.
            seed: Of the shuffles.
            rank: As for MixtureSampler.
            world_size: As for MixtureSampler.
            mesh: As for MixtureSampler.
            batches: Global batches of one pass; without it the stream has no end.
            schedule: Weights that are known beforehand, with the batch from which they hold.
            collate: Puts samples together; by default arrays of one shape are stacked.

        Raises:
            CorpusError: A source is several datasets by name.
        """
        for name, source in sources.items():
            check_is_one(name, source)
        self._sampler = MixtureSampler(
            dict.fromkeys(sources, UNKNOWN_SIZE),
            weights,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            mesh=mesh,
            batches=batches,
            schedule=schedule,
        )
        self._sources = dict(sources)
        self._form = RowFormat(length, packing, tokenize, padding)
        self._seed, self._buffer = seed, at_least(1, "buffer", buffer)
        self._collate = collate or stack_samples
        self._in_workers = _shared_flag()
        self._rows: dict[str, DomainRows] | None = None
        self._loaded: Mapping[str, Any] | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches with `domain`, `batch`, `position` and `mixture`.

        Raises:
            SamplerError: Within 100 batches of it, where ranks have come to have other weights.
            CorpusError: A source cannot be read, or gives nothing.
        """
        worker, workers = self._place()
        rows = self._opened(worker, workers)
        sampler = self._sampler
        last = sampler.pass_end
        batch = sampler.batch + (worker - sampler.batch) % workers
        while last is None or batch < last:
            first = batch * sampler.batch_size + sampler.rank * sampler.rank_batch
            domains = sampler.order.domains(first, first + sampler.rank_batch).tolist()
            names = [sampler.domains[d] for d in domains]
            samples = [_with_domain(next(rows[n]), d) for n, d in zip(names, domains, strict=True)]
            content = self._collate(samples)
            content |= {"batch": batch, "position": first}
            content["mixture"] = sampler.mixture_at(batch).fingerprint
            batch += workers
            sampler.received(batch)
            check_now_and_then(sampler)
            yield {name: _tensor(value) for name, value in content.items()}

    @property
    def set_epoch(self) -> NoReturn:
        """There is none, for accelerate, which asks before it splits batches.

        Raises:
            SamplerError: It would split them over ranks a second time.
            AttributeError: To all others.
        """
        raise refuse_second_split(self._sampler.world_size, "set_epoch")

    def __len__(self) -> int:
        """Count the batches of one pass."""
        return len(self._sampler)

    def set_weights(self, weights: Weights, batch: int | None = None) -> int:
        """Change the weights; return the batch from which they hold.

        Raises:
            SamplerError: Worker processes read the stream; they have copies that do not hear of it.
        """
        if self._in_workers.item():
            raise SamplerError(
                "the stream is read by worker processes, which do not hear of new weights: give"
                " schedule= beforehand, or read it with num_workers=0"
            )
        return self._sampler.set_weights(weights, batch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this rank and worker."""
        worker, workers = self._place()
        rows = self._opened(worker, workers)
        return {
            "format": _FORMAT,
            "readers": [self._sampler.rank, self._sampler.world_size, worker, workers],
            "sampler": self._sampler.state_dict(),
            "domains": {name: copy.deepcopy(one.state_dict()) for name, one in rows.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, with as many ranks and workers as it was made with.

        Raises:
            SamplerError: A state of another stream, or a field that cannot be right. Where the
                number of ranks or workers is another, the first batch says so.
            CorpusError: The state of a domain cannot be right.
        """
        fields = StateFields(state, "the stream's state", SamplerError)
        fields.check_format(_FORMAT)
        fields.wholes("readers", 4)
        self._sampler.check_state(fields.part("sampler").content)
        domains = fields.part("domains")
        for name in self._sources:
            self._rows_of(name, Reader(0, 1)).checked(domains.part(name).content)
        self._loaded, self._rows = state, None

    def _opened(self, worker: int, workers: int) -> dict[str, DomainRows]:
        if self._rows is None:
            reader = Reader(
                self._sampler.rank * workers + worker, self._sampler.world_size * workers
            )
            rows = {name: self._rows_of(name, reader) for name in self._sources}
            self._resume(rows, worker, workers)
            self._rows, self._loaded = rows, None
        return self._rows

    def _rows_of(self, name: str, reader: Reader) -> DomainRows:
        source = self._of_rank(self._sources[name])
        return DomainRows(
            name, source, self._form, seed=self._seed, buffer=self._buffer, reader=reader
        )

    def _resume(self, opened: Mapping[str, DomainRows], worker: int, workers: int) -> None:
        """Go on from a state that was loaded; one that is refused is refused each time."""
        state = self._loaded
        if state is None:
            return
        here = [self._sampler.rank, self._sampler.world_size, worker, workers]
        if list(state["readers"]) != here:
            raise SamplerError(
                "the state is of rank {} of {}, worker {} of {}; here it is rank {} of {}, worker"
                " {} of {}: streams go on with as many ranks and workers".format(
                    *state["readers"], *here
                )
            )
        for name, rows in opened.items():
            rows.load_state_dict(state["domains"][name])
        self._sampler.load_state_dict(state["sampler"])

    def _of_rank(self, source: Any) -> Any:
        """Give a `datasets` stream's shards to ranks; it gives them to workers itself."""
        if not hasattr(source, "num_shards") or self._sampler.world_size == 1:
            return source
        from datasets.distributed import split_dataset_by_node

        return split_dataset_by_node(source, self._sampler.rank, self._sampler.world_size)

    def _place(self) -> tuple[int, int]:
        info = get_worker_info()
        if info is None:
            return 0, 1
        self._in_workers[0] = 1
        return info.id, info.num_workers


def _shared_flag() -> torch.Tensor:
    """Return a number that worker processes share with this one."""
    flag = torch.zeros(1, dtype=torch.int8)
    torch.Tensor.share_memory_(flag)  # type: ignore[no-untyped-call]
    return flag


def _with_domain(row: Any, domain: int) -> dict[str, Any]:
    named = row if isinstance(row, Mapping) else {"sample": row}
    return {**named, "domain": domain}


def _tensor(value: Any) -> Any:
    return torch.as_tensor(value) if hasattr(value, "dtype") else value
