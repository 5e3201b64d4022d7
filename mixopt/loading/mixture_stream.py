"""MixtureStream: exact shares over domains that can only be streamed, resumable anywhere.

Which domain each global sample is from follows the same order as MixtureSampler's. The samples come
from a fixed number of lanes (mixopt.loading.stream_lanes), each with shards of every source, which
are shared among ranks and their workers; so the batches of all ranks together do not depend on how
many there are, and a run continues exactly on other numbers. The state has the place of every lane.

This module needs torch. Shapes: B samples of a global batch, G lanes of this rank, S samples of a
lane in a batch.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NoReturn

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.collate import Batch, count_samples, field_names, label, stack_samples
from mixopt.loading.stream_lanes import LanePlace, LanePlan, LaneReader, Places, deal, shards_of
from mixopt.sampling import MixtureSampler, Weights, at_least, refuse_second_split
from mixopt.system import IntArray, StateFields, shown_value

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise SamplerError("MixtureStream needs torch: pip install torch") from error

UNKNOWN_SIZE = 1 << 50  # rows of a stream, for a sampler: more than are ever read
LANES = 16
FORMAT = "mixopt-stream/5"
_WATCH_SECONDS = 2.0  # between a worker's looks at whether its parent is there


class MixtureStream(IterableDataset[Batch]):
    """Iterate over this rank's batches; the state is that of the batches received."""

    def __init__(
        self,
        sources: Mapping[str, Any],
        weights: Weights | None = None,
        *,
        batch_size: int | None = None,
        length: int | None = None,
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
        schedule: Any = (),
        collate: Callable[[Sequence[Any]], Batch] | None = None,
    ) -> None:
        """Join the streams.

        Args:
            sources: For each domain a streaming `datasets.IterableDataset`, an iterable of
                documents, or a function that returns one.
            weights: Share of the samples of each domain (of the tokens, with `length`).
            batch_size: Samples of a global batch, over all ranks.
            length: Tokens of a row that documents are packed into, whole but for longer ones;
                None where documents are rows.
            tokenize: Turns a document into tokens that end with the end-of-document id.
            padding: Token id where a row is not full.
            buffer: Documents of a domain that are shuffled together, over all lanes.
            lanes: How many streams the sources are divided into by their shards, which ranks and
                workers share: it divides `batch_size`, and any number of ranks that divides it can
                resume from a state. By default the largest up to 16 for which each source has
                shards; a source that is not a streaming data set has one.
            workers: Processes of this rank that read, at most its lanes; 0 reads in this one.
            prefetch: Batches that workers are asked for ahead.
            seed: Of the shuffles.
            rank: As for MixtureSampler.
            world_size: As for MixtureSampler.
            mesh: As for MixtureSampler.
            batches: Global batches of one pass; without it the stream has no end.
            schedule: As for MixtureSampler.
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
        self._total = _lanes(lanes, self._sampler, {n: shards_of(n, s) for n, s in sources.items()})
        count = self._total // self._sampler.world_size
        self._lanes = range(self._sampler.rank * count, (self._sampler.rank + 1) * count)
        if at_least(0, "workers", workers) > count:
            raise SamplerError(
                f"workers {workers}: a rank has {count} lanes to share; use at most that"
            )
        self._workers = workers
        self._prefetch = at_least(1, "prefetch", prefetch)
        block = max(1, at_least(1, "buffer", buffer) // self._total)
        self._plan = LanePlan(sources, self._total, seed, block, length, tokenize, padding)
        self.collate = collate
        self._columns: set[str] = set()
        self._inline: LaneReader | None = None
        self._places: Places = {(n, lane): LanePlace() for n in sources for lane in self._lanes}

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise SamplerError(
                "each worker of a DataLoader would read all of this rank's part; give "
                "MixtureStream(workers=) instead of DataLoader(num_workers=)"
            )
        sampler, last = self._sampler, self._sampler.pass_end
        workers = self._start_workers() if self._workers else None
        requested: deque[IntArray] = deque()
        try:
            while last is None or sampler.batch < last:
                batch = sampler.batch
                ahead = self._prefetch if workers else 0
                stop = batch + 1 + ahead if last is None else min(batch + 1 + ahead, last)
                for number in range(batch + len(requested), stop):
                    requested.append(self._domains(number))
                    if workers:
                        workers.ask(requested[-1])
                samples = workers.take() if workers else [self._read(requested[0])]
                rows: list[Any] = []
                for part, changed in samples:
                    rows += part
                    self._places |= changed
                sampler.received(batch + 1, handed_out=batch + len(requested))
                yield self._batch(batch, rows, requested.popleft())
        except BrokenProcessPool as error:
            raise SamplerError(
                f"one of the {self._workers} workers of the stream died; iterate again, or load a"
                " state, and the stream continues with the next batch"
            ) from error
        finally:
            if workers:
                workers.close()
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
        return len(self._sampler)

    @property
    def sampler(self) -> MixtureSampler:
        """Says which domain each sample is from."""
        return self._sampler

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

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the batches received, the same on every rank.

        With several ranks it is a collective of torch.distributed: every rank calls it.

        Raises:
            SamplerError: There are other ranks and no torch.distributed to ask them by, or ranks
                are not at one batch of one stream.
        """
        ranks = self._sampler.world_size
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

    def _own_state(self) -> dict[str, Any]:
        """Return the state of this rank's lanes."""
        domains = {
            name: {str(lane): list(self._places[name, lane]) for lane in self._lanes}
            for name in self._plan.sources
        }
        state = {"format": FORMAT, **self._settings(), "sampler": self._sampler.state_dict()}
        return {**state, "domains": domains}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, on any number of workers and of ranks that divides its lanes.

        Raises:
            SamplerError: A state of another stream, or a field that cannot be right. Nothing is
                changed.
        """
        fields = StateFields(state, "the stream's state", SamplerError)
        fields.check_format(FORMAT)
        for name, here in self._settings().items():
            if fields.get(name) != here:
                raise SamplerError(
                    f"the stream's state: {name}: it is {shown_value(fields.get(name))}, here"
                    f" {shown_value(here)}"
                )
        domains = fields.part("domains")
        places = {
            (name, lane): _read_place(domains.part(name), lane)
            for name in self._plan.sources
            for lane in self._lanes
        }
        self._sampler.load_state_dict(fields.part("sampler").content)
        self._places, self._inline = places, None

    def _settings(self) -> dict[str, Any]:
        """Return what the batches follow from besides sources and sampler."""
        return {"lanes": self._total, "block": self._plan.block, "length": self._plan.length}

    def _start_workers(self) -> _Workers:
        """Start processes that read neighbouring lanes each, from where those are."""
        self._inline = None
        lanes = [part.tolist() for part in np.array_split(self._lanes, self._workers)]
        return _Workers(self._plan, lanes, self._places)

    def _read(self, domain_GS: IntArray) -> tuple[list[Any], Places]:
        """Read a batch in this process."""
        if self._inline is None:
            self._inline = LaneReader(self._plan, self._lanes, self._places)
        try:
            return self._inline.read(domain_GS)
        except BaseException:
            self._inline = None  # it may have read a part of the batch
            raise

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
        return {
            name: torch.as_tensor(value) if hasattr(value, "dtype") else value
            for name, value in label(content, fields, sampler, batch).items()
        }


class _Workers:
    """Processes of one rank, each of which reads neighbouring lanes.

    They are told the domains of their samples, so they need not hear of new weights. They are not
    torch's DataLoader's: in those, sources that look where they are would read other parts.
    """

    def __init__(self, plan: LanePlan, lanes: Sequence[Sequence[int]], places: Places) -> None:
        self._ends = np.cumsum([len(some) for some in lanes])
        self._pools = [
            ProcessPoolExecutor(1, initializer=_begin, initargs=(plan, some, places, os.getpid()))
            for some in lanes
        ]
        self._asked: deque[list[Future[Any]]] = deque()

    def ask(self, domain_GS: IntArray) -> None:
        """Ask for the samples of a batch, of the rank's lanes."""
        parts = np.split(domain_GS, self._ends[:-1])
        pairs = zip(self._pools, parts, strict=True)
        self._asked.append([pool.submit(_answer, part) for pool, part in pairs])

    def take(self) -> list[tuple[list[Any], Places]]:
        """Return each worker's samples of the first batch that was asked for and not taken."""
        return [answer.result() for answer in self._asked.popleft()]

    def close(self) -> None:
        """End the processes, once they have answered what they read."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)


_reader: list[LaneReader] = []  # of a worker process


def _begin(plan: LanePlan, lanes: Sequence[int], places: Places, parent: int) -> None:
    """Open the lanes of a worker, which ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    asyn: Any = sys.modules.get("fsspec.asyn")
    if asyn is not None:  # its loop and its lock are the parent's
        asyn.reset_lock()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _reader[:] = [LaneReader(plan, lanes, places)]


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(0)


def _answer(domain_GS: IntArray) -> tuple[list[Any], Places]:
    return _reader[0].read(domain_GS)


def joined_states(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the states of the ranks of a stream together; any number of ranks resumes from that."""
    first, *others = states
    domains = {name: dict(lanes) for name, lanes in first["domains"].items()}
    for k, state in enumerate(others, 1):
        for name in first.keys() - {"domains"}:
            if state[name] != first[name]:
                raise SamplerError(f"the stream's state of rank {k}: {name}: is not that of rank 0")
        for name, lanes in state["domains"].items():
            domains[name].update(lanes)
    ordered = {n: dict(sorted(one.items(), key=lambda p: int(p[0]))) for n, one in domains.items()}
    return {**first, "domains": ordered}


def _lanes(given: int | None, sampler: MixtureSampler, shards: Mapping[str, int]) -> int:
    """Return the number of lanes, which divides the batch and which ranks can share."""
    size, ranks = sampler.batch_size, sampler.world_size
    fewest = min(shards, key=lambda name: shards[name])
    most = shards[fewest]
    lanes = given
    if lanes is None:
        lanes = next(n for n in range(min(LANES, size, most), 0, -1) if size % n == 0)
    if at_least(1, "lanes", lanes) > most or most < ranks:
        raise SamplerError(
            f"domain {fewest!r}: its source can be divided into {most}, and {max(lanes, ranks)}"
            f" lanes of {ranks} ranks read a part each: give it more files, or use a MixtureDataset"
        )
    if size % lanes or lanes % ranks:
        good = [n for n in range(ranks, min(size, most) + 1, ranks) if size % n == 0]
        raise SamplerError(
            f"lanes {lanes}: {ranks} ranks share the lanes, which divide batch_size {size}; lanes="
            f" can be {', '.join(map(str, good[:8])) or 'none'}"
        )
    return lanes


def _read_place(fields: StateFields, lane: int) -> LanePlace:
    """Take the place of a lane of a domain from a state."""
    name = str(lane)
    *numbers, source = fields.listed(name, len(LanePlace._fields))
    named = StateFields({name: numbers, "source": source}, fields.where, SamplerError)
    state = named.maybe("source", lambda field: named.part(field).content)
    return LanePlace._make([*named.wholes(name), state])
