"""MixtureStream: exact shares over domains that can only be streamed, resumable anywhere.

Which domain each global sample is from follows the same order as MixtureSampler's. The samples come
from a fixed number of lanes (mixopt.loading.stream_lanes), which are shared among ranks and their
workers; so the batches of all ranks together do not depend on how many there are, and a run
continues exactly on other numbers. The state has the place of every lane.

This module needs torch. Shapes: G lanes of this rank, S samples of a lane in a batch.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.collate import Batch, count_samples, stack_samples
from mixopt.loading.field_names import field_names
from mixopt.loading.row_format import Packing, RowFormat
from mixopt.loading.stream_deal import deal
from mixopt.loading.stream_lanes import LanePlan, LaneReader
from mixopt.loading.stream_places import StreamPlaces, join_stream_states, read_places
from mixopt.loading.stream_sources import DividedSource
from mixopt.loading.stream_workers import InProcess, StreamWorkers
from mixopt.sampling import (
    MixtureSampler,
    Weights,
    at_least,
    refuse_second_split,
)
from mixopt.system import IntArray, StateFields, shown_value

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise SamplerError("MixtureStream needs torch: pip install torch") from error

UNKNOWN_SIZE = 1 << 50  # rows of a stream, for a sampler: more than are ever read
LANES = 16
_FORMAT = "mixopt-stream/2"


class MixtureStream(IterableDataset[Batch]):
    """Iterate over this rank's batches; the state is that of the batches received."""

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
        buffer: int = 4096,
        lanes: int | None = None,
        workers: int = 0,
        prefetch: int = 2,
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
            buffer: Documents of a domain that are shuffled together, over all lanes.
            lanes: How many streams the sources are divided into, which ranks and workers share:
                it divides `batch_size`, and any number of ranks that divides it can resume from a
                state. By default the largest up to 16.
            workers: Processes of this rank that read, at most its lanes; 0 reads in this one.
            prefetch: Batches that workers are asked for ahead.
            seed: Of the shuffles.
            rank: As for MixtureSampler.
            world_size: As for MixtureSampler.
            mesh: As for MixtureSampler.
            batches: Global batches of one pass; without it the stream has no end.
            schedule: Weights that are known beforehand, with the batch from which they hold.
            collate: Puts samples together; by default arrays of one shape are stacked.

        Raises:
            SamplerError: A setting that cannot be right.
        """
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
        self._total = _lanes(lanes, self._sampler)
        count = self._total // self._sampler.world_size
        self._lanes = range(self._sampler.rank * count, (self._sampler.rank + 1) * count)
        self._workers = _workers(workers, count)
        self._prefetch = at_least(1, "prefetch", prefetch)
        block = max(1, at_least(1, "buffer", buffer) // self._total)
        divided = {n: DividedSource(n, s, self._total, block) for n, s in sources.items()}
        self._form = RowFormat(length, packing, tokenize, padding)
        self._plan = LanePlan(divided, self._form, seed, block)
        self.collate = collate
        self._columns: set[str] = set()
        self._begin(StreamPlaces.at_start(divided, self._lanes))

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches to the end of the pass.

        Each has the `domain` of its samples, `batch`, `position`, `mixture`, and where samples have
        `input_ids` their `tokens` and `supervised` tokens by domain, shape (D,), as MixtureLoader's
        have. Where documents have a column of such a name, ours has `mixopt_` before it.

        Raises:
            SamplerError: A worker process of torch's DataLoader iterates, or a worker process has
                died.
            CorpusError: A source cannot be read, gives nothing or is not what it was.
        """
        if get_worker_info() is not None:
            raise SamplerError(
                "each worker of a DataLoader would read all of this rank's part; give "
                "MixtureStream(workers=) instead of DataLoader(num_workers=)"
            )
        sampler, readers = self._sampler, self._readers()
        asked: deque[IntArray] = deque()
        last = sampler.pass_end
        try:
            while last is None or sampler.batch < last:
                self._ask(readers, asked, last)
                samples = self._take(readers)
                batch = sampler.batch
                sampler.received(batch + 1, handed_out=batch + len(asked))
                yield self._batch(batch, samples, asked.popleft())
        finally:
            readers.close()
            sampler.received(sampler.batch)

    @property
    def set_epoch(self) -> NoReturn:
        """Raises AttributeError: accelerate looks for it before it splits batches.

        Raises:
            SamplerError: It would split them over ranks a second time.
            AttributeError: To all others.
        """
        raise refuse_second_split(self._sampler.world_size, "set_epoch")

    def __len__(self) -> int:
        """Count the batches of one pass."""
        return len(self._sampler)

    @property
    def sampler(self) -> MixtureSampler:
        """Says which domain each sample is from."""
        return self._sampler

    @property
    def fingerprint(self) -> str:
        """A hash of all that determines the order from the next batch on; equal on all ranks."""
        return self._sampler.fingerprint

    @property
    def columns(self) -> set[str]:
        """Names of the samples' own fields, among those delivered so far."""
        return self._columns

    @property
    def fields(self) -> dict[str, str]:
        """Names of the fields that the stream adds, among those delivered so far."""
        return field_names(self._columns)

    def set_weights(self, weights: Weights, batch: int | None = None) -> int:
        """Change the weights; return the batch from which they apply.

        That is the next one, or with worker processes the first that none was asked for:
        `prefetch` batches on; after `accumulate` the next that begins a step. Say the same on
        every rank.

        Raises:
            SamplerError: The batch was asked for already.
            MixtureError: Weights that are not a mixture of these domains.
        """
        return self._sampler.set_weights(weights, batch)

    def accumulate(self, batches: int) -> None:
        """Align changes of weights with optimizer steps of so many global batches."""
        self._sampler.accumulate(batches)

    def state_dict(self, *, consumed: int | None = None) -> dict[str, Any]:
        """Return the state after the batches received, the same on every rank.

        With several ranks it is a collective of torch.distributed: every rank calls it.

        Args:
            consumed: How many global batches of the stream the loop has trained on, for one that
                may have fetched more; the places before them are not kept.

        Raises:
            SamplerError: Another number was received than `consumed`; there are other ranks and no
                torch.distributed to ask them by, or ranks are not at one batch of one stream.
        """
        received = self._sampler.batch
        if consumed not in {None, received}:
            raise SamplerError(
                f"state_dict(consumed={shown_value(consumed)}): the stream has handed out "
                f"{received} batches and knows its position only after those; take state_dict() "
                "with each batch, before the next is fetched, and save that of the last one "
                "trained on"
            )
        state = self.rank_state()
        if self._sampler.world_size == 1:
            return state
        distributed: Any = sys.modules.get("torch.distributed")
        if distributed is None or not distributed.is_initialized():
            raise SamplerError(
                f"the state has the lanes of all {self._sampler.world_size} ranks, but "
                "torch.distributed is not initialised to gather them: save rank_state() of each, "
                "and join them by join_stream_states"
            )
        states: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(states, state)
        return join_stream_states(states)

    def rank_state(self) -> dict[str, Any]:
        """Return the state of this rank's lanes; it resumes only with this number of ranks."""
        return {
            "format": _FORMAT,
            **self._settings(),
            "sampler": self._sampler.state_dict(),
            "domains": StreamPlaces.joined(self._places).state(self._plan.sources),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, on any number of workers and of ranks that divides its lanes.

        Raises:
            SamplerError: A state of another stream, or a field that cannot be right. Nothing is
                changed.
        """
        fields = StateFields(state, "the stream's state", SamplerError)
        fields.check_format(_FORMAT)
        for name, here in self._settings().items():
            if fields.get(name) != here:
                raise SamplerError(
                    f"the stream's state: {name}: it is {shown_value(fields.get(name))}, here"
                    f" {shown_value(here)}"
                )
        places = read_places(fields.part("domains"), self._plan.sources, self._lanes)
        self._sampler.load_state_dict(fields.part("sampler").content)
        self._begin(places)

    def _settings(self) -> dict[str, Any]:
        """Return what the batches follow from besides sources and sampler."""
        return {
            "lanes": self._total,
            "block": self._plan.buffer,
            "length": self._form.length,
            "packing": self._form.packing,
        }

    def _begin(self, places: StreamPlaces) -> None:
        """Resume from places; the lanes are opened there with the next batch."""
        self._places = [places]
        self._inline: InProcess | None = None

    def _readers(self) -> StreamWorkers | InProcess:
        places = StreamPlaces.joined(self._places)
        if self._workers:
            parts = np.array_split(self._lanes, self._workers)
            lanes = [[int(lane) for lane in part] for part in parts]
            self._places = [places.of(some, self._plan.sources) for some in lanes]
            return StreamWorkers(self._plan, lanes, self._places)
        if self._inline is None:
            self._inline = InProcess(LaneReader(self._plan, self._lanes, places))
            self._places = [places]
        return self._inline

    def _ask(
        self, readers: StreamWorkers | InProcess, asked: deque[IntArray], last: int | None
    ) -> None:
        """Ask for the next batch, and with workers for those after it."""
        ahead = 1 + (self._prefetch if self._workers else 0)
        while len(asked) < ahead:
            batch = self._sampler.batch + len(asked)
            if last is not None and batch >= last:
                return
            asked.append(self._domains(batch))
            readers.ask(asked[-1])

    def _take(self, readers: StreamWorkers | InProcess) -> list[Any]:
        """Return the samples of a batch, and note where they leave the lanes."""
        try:
            taken = readers.take()
        except BaseException:
            self._inline = None  # it may have read a part of the batch
            raise
        for places, part in zip(self._places, taken, strict=True):
            places.update(part.places)
        return [sample for part in taken for sample in part.samples]

    def _domains(self, batch: int) -> IntArray:
        """Return the domains of a batch's samples in this rank's lanes, shape (G, S)."""
        domain_B = self._sampler.order.domains(batch)
        return deal(domain_B, self._total, batch)[self._lanes.start : self._lanes.stop]

    def _batch(self, batch: int, samples: list[Any], domain_GS: IntArray) -> Batch:
        sampler, domain = self._sampler, domain_GS.ravel()
        rows = [one if isinstance(one, Mapping) else {"sample": one} for one in samples]
        self._columns.update(*rows)
        fields = self.fields
        domains = zip(rows, domain.tolist(), strict=True)
        collate = self.collate or stack_samples
        content = dict(collate([{**row, fields["domain"]: d} for row, d in domains]))
        content[fields["domain"]] = domain
        counts = count_samples(rows)
        if counts is not None:
            by_domain = counts.by_domain(domain, len(sampler.domains))
            content[fields["tokens"]], content[fields["supervised"]] = by_domain
        content[fields["batch"]] = batch
        content[fields["position"]] = batch * sampler.batch_size + sampler.rank * sampler.rank_batch
        content[fields["mixture"]] = sampler.mixture_at(batch).fingerprint
        return {name: _tensor(value) for name, value in content.items()}


def _lanes(given: int | None, sampler: MixtureSampler) -> int:
    """Return the number of lanes.

    Raises:
        SamplerError: It does not divide the batch, or ranks cannot share the lanes.
    """
    size, ranks = sampler.batch_size, sampler.world_size
    lanes = given
    if lanes is None:
        lanes = next(n for n in range(min(LANES, size), 0, -1) if size % n == 0)
    at_least(1, "lanes", lanes)
    if size % lanes or lanes % ranks:
        good = [n for n in range(ranks, size + 1, ranks) if size % n == 0]
        raise SamplerError(
            f"lanes {lanes}: {ranks} ranks share the lanes, which divide batch_size {size}; lanes="
            f" can be {', '.join(map(str, good[:8]))}"
        )
    return lanes


def _workers(workers: int, lanes: int) -> int:
    if at_least(0, "workers", workers) > lanes:
        raise SamplerError(
            f"workers {workers}: a rank has {lanes} lanes to share; use at most that"
        )
    return workers


def _tensor(value: Any) -> Any:
    return torch.as_tensor(value) if hasattr(value, "dtype") else value
