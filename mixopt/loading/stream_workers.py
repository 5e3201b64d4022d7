"""Worker processes that read the lanes of a stream, some lanes each.

This process says which domains the samples of a batch are from, and each worker answers with those
of its lanes; so workers need not hear of new weights, and their number does not show in the
batches. They are asked a few batches ahead. They are processes of our own, not of torch's
DataLoader: in those, sources that look where they are (`datasets`, or any that ask for torch's
worker info) would read another part in each.

What goes through the pipes is pickled by the process that reads it or by its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.stream_lanes import LanePlan, LaneReader, LaneSamples
from mixopt.loading.stream_places import StreamPlaces
from mixopt.system import IntArray

_WATCH_SECONDS = 2.0  # between two looks at whether the parent is there


class StreamWorkers:
    """The worker processes of one rank; each reads neighbouring lanes."""

    def __init__(
        self, plan: LanePlan, lanes: Sequence[Sequence[int]], places: Sequence[StreamPlaces]
    ) -> None:
        """Start the processes.

        Args:
            plan: What is read.
            lanes: Those of each worker.
            places: Where they are.

        Raises:
            SamplerError: The sources cannot be given to a process.
        """
        self._ends = np.cumsum([len(some) for some in lanes])
        self._connections: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._asked = 0
        try:
            for some, there in zip(lanes, places, strict=True):
                self._start(plan, some, there)
        except BaseException:
            self.close()
            raise

    def ask(self, domain_GS: IntArray) -> None:
        """Ask for the samples of a batch, of the rank's lanes."""
        for connection, part in zip(self._connections, self._split(domain_GS), strict=True):
            try:
                connection.send_bytes(pickle.dumps(part))
            except OSError:  # it has died, which is told when it should answer
                continue

    def take(self) -> list[LaneSamples]:
        """Return each worker's samples of the first batch that was asked for and not taken.

        Raises:
            SamplerError: A worker has died.
            Exception: What reading raised in a worker.
        """
        answers = [self._answer(k) for k in range(len(self._connections))]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def close(self) -> None:
        """End the processes, whatever they do."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for connection in self._connections:
            connection.close()
        self._processes, self._connections = [], []

    def _split(self, domain_GS: IntArray) -> list[IntArray]:
        return np.split(domain_GS, self._ends[:-1])

    def _start(self, plan: LanePlan, lanes: Sequence[int], places: StreamPlaces) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._connections.append(ours)
        process = multiprocessing.Process(
            target=_serve,
            args=(theirs, list(self._connections), plan, list(lanes), places),
            daemon=True,
            name=f"mixopt-stream-{len(self._processes)}",
        )
        try:
            process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise SamplerError(
                f"a source or `tokenize` cannot be given to a worker process: {error}; define it in"
                " a module, or read with workers=0"
            ) from error
        finally:
            theirs.close()
        self._processes.append(process)

    def _answer(self, number: int) -> Any:
        connection, process = self._connections[number], self._processes[number]
        wait([connection, process.sentinel])
        try:
            return pickle.loads(connection.recv_bytes())
        except (EOFError, OSError) as error:
            process.join()
            code = process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise SamplerError(
                f"worker {number} of {len(self._processes)} of the stream died with {how}; "
                "iterate again, or load a state, and the stream continues with the next batch"
            ) from error


def _serve(
    connection: Connection,
    parents: Sequence[Connection],
    plan: LanePlan,
    lanes: Sequence[int],
    places: StreamPlaces,
) -> None:
    """Answer what is asked, in a worker, until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    for one in parents:  # of the parent, which a fork has copied
        one.close()
    _reset_fsspec()
    asked: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, asked, os.getppid()), daemon=True).start()
    reader: LaneReader | None = None
    while True:
        domain_GS = pickle.loads(asked.get())
        try:
            reader = reader or LaneReader(plan, lanes, places)
            answer: Any = reader.read(domain_GS)
        except Exception as error:  # of a source or of `tokenize`: raised where it is asked for
            answer = _told(error)
        connection.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))


def _listen(connection: Connection, asked: queue.SimpleQueue[bytes], parent: int) -> None:
    """Take what is asked, so that the parent never waits; end with the parent."""
    try:
        while True:
            if connection.poll(_WATCH_SECONDS):
                asked.put(connection.recv_bytes())
            elif os.getppid() != parent:
                break
    except (EOFError, OSError):
        pass
    os._exit(0)


def _told(error: Exception) -> Exception:
    """Return an error that can be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"in a worker of the stream: {type(error).__name__}: {error}")
    return error


def _reset_fsspec() -> None:
    """Let a forked process read remote files: fsspec's loop and its lock are the parent's."""
    asyn: Any = sys.modules.get("fsspec.asyn")
    if asyn is not None:
        asyn.reset_lock()


class InProcess:
    """Reads the lanes of a rank here, when a batch is taken."""

    def __init__(self, reader: LaneReader) -> None:
        """Take what reads them."""
        self._reader = reader
        self._asked: deque[IntArray] = deque()

    def ask(self, domain_GS: IntArray) -> None:
        """Ask for the samples of a batch."""
        self._asked.append(domain_GS)

    def take(self) -> list[LaneSamples]:
        """Read the samples of the first batch that was asked for and not taken."""
        return [self._reader.read(self._asked.popleft())]

    def close(self) -> None:
        """Keep the lanes open: nothing was read that was not taken."""
