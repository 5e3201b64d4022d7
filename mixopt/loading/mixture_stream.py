"""MixtureStream: exact shares over streamed domains, resumable anywhere.

MixtureSampler defines the order of domains; samples come from a fixed number of lanes
(mixopt.loading.stream_lanes), which are divided among ranks and workers, so that batches and resume
do not depend on the numbers of these. This module needs torch.

Shapes: B samples of a global batch, G lanes of this rank, S samples of a lane in a batch.
"""

import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from typing import Any, NoReturn

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.dataset import (
    Batch,
    Collate,
    count_samples,
    label,
    sample_fields,
    stack_samples,
)
from mixopt.loading.documents import Tokenize
from mixopt.loading.stream_lanes import LanePlace, LanePlan, LaneReader, Places, deal, shards_of
from mixopt.sampling import MixtureSampler, Weights, at_least, refuse_second_split
from mixopt.system import (
    IntArray,
    PlainDict,
    PlainMapping,
    StateFields,
    end_with_parent,
    shown_value,
)

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise SamplerError("MixtureStream needs torch: pip install torch") from error

UNKNOWN_SIZE = 1 << 50  # rows of a stream for the sampler, more than are ever read
LANES = 16
FORMAT = "mixopt-stream/5"


class MixtureStream(IterableDataset[Batch]):
    """Iterates over this rank's batches; its state is that of the received batches.

    Attributes:
        sampler: The order of domains.
        columns: Fields of the samples delivered so far.
        collate: Collates samples; None stacks arrays of equal shape.
    """

    def __init__(
        self,
        sources: PlainMapping,
        weights: Weights | None = None,
        *,
        batch_size: int | None = None,
        length: int | None = None,
        tokenize: Tokenize | None = None,
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
        schedule: Any = (),
        collate: Collate | None = None,
    ) -> None:
        """Combine the streams.

        Args:
            sources: For each domain a streaming `datasets.IterableDataset`, an iterable of
                documents, or a function that returns one.
            weights: Share of samples of each domain (of tokens, with `length`).
            batch_size: Samples in a global batch, over all ranks.
            length: Tokens in a row; documents are packed into rows, whole except longer ones. None:
                documents are rows.
            tokenize: Converts a document to tokens that end with the end-of-document id.
            padding: Token id of padding.
            buffer: Documents of a domain that are shuffled together, over all lanes.
            lanes: Number of streams into which the sources' shards are divided, shared by ranks and
                workers: it divides `batch_size`, and any number of ranks that divides it can resume
                from a state. By default the largest up to 16 for which each source has shards; a
                source that is not a streaming dataset has one.
            workers: Reading processes of this rank, at most its lanes; 0: this process.
            prefetch: Batches requested ahead from workers.
            seed: Seed of shuffles.
            rank: As for MixtureSampler.
            world_size: As for MixtureSampler.
            mesh: As for MixtureSampler.
            batches: Global batches of one pass; None: endless.
            schedule: As for MixtureSampler.
            collate: Collates samples; by default stacks arrays of equal shape.

        Raises:
            SamplerError: An invalid setting.
        """
        self.sampler = MixtureSampler(
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
        self._total = _lanes(lanes, self.sampler, {n: shards_of(n, s) for n, s in sources.items()})
        count = self._total // self.sampler.world_size
        first = self.sampler.rank * count
        self._lanes = range(first, first + count)
        if at_least(0, "workers", workers) > count:
            raise SamplerError(f"workers {workers}: a rank has {count} lanes; use at most that")
        self._workers = workers
        self._prefetch = at_least(1, "prefetch", prefetch)
        block = max(1, at_least(1, "buffer", buffer) // self._total)
        self._plan = LanePlan(sources, self._total, seed, block, length, tokenize, padding)
        self.collate = collate
        self.columns: set[str] = set()
        self._inline: LaneReader | None = None
        self._places: Places = {key: LanePlace() for key in product(sources, self._lanes)}

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise SamplerError(
                "each worker of a DataLoader would read all of this rank's part; give "
                "MixtureStream(workers=) instead of DataLoader(num_workers=)"
            )
        sampler = self.sampler
        last = sampler.pass_end
        workers = self._start_workers()
        ahead = self._prefetch if workers else 0
        requested: deque[tuple[IntArray, list[Future[Any]]]] = deque()
        try:
            while last is None or sampler.batch < last:
                batch = sampler.batch
                stop = batch + 1 + ahead if last is None else min(batch + 1 + ahead, last)
                for number in range(batch + len(requested), stop):
                    dealt = deal(sampler.order.domains(number), self._total, number)
                    domain_GS = dealt[self._lanes.start : self._lanes.stop]
                    parts = np.array_split(domain_GS, self._workers) if workers else []
                    pairs = zip(workers, parts, strict=True)
                    answers = [worker.submit(_answer, part) for worker, part in pairs]
                    requested.append((domain_GS, answers))
                handed_out = batch + len(requested)
                domain_GS, answers = requested.popleft()
                if workers:
                    read = [answer.result() for answer in answers]
                else:
                    read = [self._read(domain_GS)]
                rows: list[Any] = []
                for part, changed in read:
                    rows += part
                    self._places |= changed
                sampler.received(batch + 1, handed_out=handed_out)
                yield self._batch(batch, rows, domain_GS)
        except BrokenProcessPool as error:
            raise SamplerError(
                f"one of the {self._workers} workers of the stream died; iterate again, or load a"
                " state, and the stream continues with the next batch"
            ) from error
        finally:
            for worker in workers:  # each ends after its present batch
                worker.shutdown(wait=True, cancel_futures=True)
            sampler.received(sampler.batch)

    @property
    def set_epoch(self) -> NoReturn:
        """Raises AttributeError, or SamplerError where accelerate would split batches again."""
        raise refuse_second_split(self.sampler.world_size, "set_epoch")

    def __len__(self) -> int:
        return len(self.sampler)

    def set_weights(self, weights: Weights, batch: int | None = None) -> int:
        """Change the weights; return the first batch to which they apply.

        That is the next batch; with worker processes the first one not requested yet, after
        `prefetch` batches; after `accumulate` the next first batch of a step. Call it equally on
        every rank.

        Raises:
            SamplerError: The batch was already requested.
            MixtureError: The weights are not a mixture of these domains.
        """
        return self.sampler.set_weights(weights, batch)

    def accumulate(self, batches: int) -> None:
        """Align changes of weights with optimizer steps of this number of global batches."""
        self.sampler.accumulate(batches)

    def state_dict(self) -> PlainDict:
        """Return the state after the received batches, the same on every rank.

        With several ranks it is a torch.distributed collective: every rank calls it.

        Raises:
            SamplerError: Several ranks without torch.distributed, or ranks are not at the same
                batch of the same stream.
        """
        ranks = self.sampler.world_size
        if ranks == 1:
            return self._own_state()
        distributed: Any = sys.modules.get("torch.distributed")
        if distributed is None or not distributed.is_initialized():
            raise SamplerError(
                f"the state has the lanes of all {ranks} ranks, but torch.distributed is not"
                " initialised to gather them: call init_process_group before"
            )
        states: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(states, self._own_state())
        return joined_states(states)

    def _own_state(self) -> PlainDict:
        """Return the state of this rank's lanes."""
        domains: PlainDict = {}
        for name in self._plan.sources:
            domains[name] = {str(lane): list(self._places[name, lane]) for lane in self._lanes}
        return {
            "format": FORMAT,
            **self._settings(),
            "sampler": self.sampler.state_dict(),
            "domains": domains,
        }

    def load_state_dict(self, state: PlainMapping) -> None:
        """Resume from a state, on any number of workers and of ranks that divides its lanes.

        Raises:
            SamplerError: A state of another stream, or an invalid field. Nothing is
                changed.
        """
        fields = StateFields(state, "the stream's state", SamplerError)
        fields.check_format(FORMAT)
        for name, current in self._settings().items():
            if fields.get(name) != current:
                raise SamplerError(
                    f"the stream's state: {name}: it is {shown_value(fields.get(name))}, here"
                    f" {shown_value(current)}"
                )
        domains = fields.part("domains")
        places = {
            (name, lane): LanePlace.read(domains.part(name), str(lane))
            for name, lane in product(self._plan.sources, self._lanes)
        }
        self.sampler.load_state_dict(fields.part("sampler").content)
        self._places = places
        self._inline = None

    def _settings(self) -> PlainDict:
        """Return the settings that determine the batches, besides sources and sampler."""
        return {"lanes": self._total, "block": self._plan.block, "length": self._plan.length}

    def _start_workers(self) -> list[ProcessPoolExecutor]:
        """Start reading processes of this rank, each for neighbouring lanes."""
        if not self._workers:
            return []
        self._inline = None
        workers = []
        for lanes in np.array_split(self._lanes, self._workers):
            arguments = (self._plan, lanes.tolist(), self._places)
            workers.append(ProcessPoolExecutor(1, initializer=_begin, initargs=arguments))
        return workers

    def _read(self, domain_GS: IntArray) -> tuple[list[Any], Places]:
        """Read a batch in this process."""
        if self._inline is None:
            self._inline = LaneReader(self._plan, self._lanes, self._places)
        try:
            return self._inline.read(domain_GS)
        except BaseException:
            self._inline = None  # it may have read part of a batch
            raise

    def _batch(self, batch: int, samples: list[Any], domain_GS: IntArray) -> Batch:
        sampler = self.sampler
        domain = domain_GS.ravel()
        rows = [sample_fields("a document of a stream", sample) for sample in samples]
        self.columns.update(*rows)
        numbered = zip(rows, domain.tolist(), strict=True)
        collate = self.collate or stack_samples
        content = dict(collate([{**row, "domain": d} for row, d in numbered]))
        content["domain"] = domain
        counts = count_samples(rows)
        if counts is not None:
            by_domain = counts.by_domain(domain, len(sampler.domains))
            content["tokens"] = by_domain.tokens_B
            content["supervised"] = by_domain.supervised_B
        labelled = label(content, sampler, batch)
        for name, value in labelled.items():
            if hasattr(value, "dtype"):
                labelled[name] = torch.as_tensor(value)
        return labelled


_reader: list[LaneReader] = []  # in a worker process


def _begin(plan: LanePlan, lanes: Sequence[int], places: Places) -> None:
    """Open the lanes of a worker process, which ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # handled by the parent
    asyn: Any = sys.modules.get("fsspec.asyn")
    if asyn is not None:  # reset the parent's event loop and lock
        asyn.reset_lock()
    end_with_parent()
    _reader[:] = [LaneReader(plan, lanes, places)]


def _answer(domain_GS: IntArray) -> tuple[list[Any], Places]:
    return _reader[0].read(domain_GS)


def joined_states(states: Sequence[PlainMapping]) -> PlainDict:
    """Join the states of a stream's ranks to one for any number of ranks."""
    first = states[0]
    for k, state in enumerate(states):
        for name in first.keys() - {"domains"}:
            if state[name] != first[name]:
                raise SamplerError(f"the stream's state of rank {k}: {name}: is not that of rank 0")
    domains: PlainDict = {name: {} for name in first["domains"]}
    for state in states:
        for name, places in domains.items():
            places.update(state["domains"][name])
    return {**first, "domains": domains}


def _lanes(lanes: int | None, sampler: MixtureSampler, shards: Mapping[str, int]) -> int:
    """Return the number of lanes, which divides the batch and is divisible by ranks."""
    size = sampler.batch_size
    ranks = sampler.world_size
    fewest = min(shards, key=lambda name: shards[name])
    max_lanes = shards[fewest]
    if lanes is None:
        divisors = (n for n in range(min(LANES, size, max_lanes), 0, -1) if size % n == 0)
        lanes = next(divisors, 1)
    if at_least(1, "lanes", lanes) > max_lanes or max_lanes < ranks:
        raise SamplerError(
            f"domain {fewest!r}: its source can be divided into {max_lanes}, and"
            f" {max(lanes, ranks)} lanes of {ranks} ranks read a part each: give it more files, or"
            " use a MixtureDataset"
        )
    if size % lanes or lanes % ranks:
        good = [n for n in range(ranks, min(size, max_lanes) + 1, ranks) if size % n == 0]
        raise SamplerError(
            f"lanes {lanes}: {ranks} ranks share the lanes, which divide batch_size {size}; lanes="
            f" can be {', '.join(map(str, good[:8])) or 'none'}"
        )
    return lanes
