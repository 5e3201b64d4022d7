"""Run a function in other processes, none of which outlives the caller, and say which one died.

Libraries in C end the whole process on some damaged files, and a large job may be killed for its
memory; here that is another process's end, and the job that it had is named.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

from mixopt.errors import MixoptError

Job = TypeVar("Job")
Result = TypeVar("Result")
_THREADS = "RAYON_NUM_THREADS"  # of Hugging Face's tokenizers, in one process


def in_processes(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    died: Callable[[Job], MixoptError],
    threads: int = 0,
) -> Iterator[Result]:
    """Give the results of a function in the order of its jobs, several processes at work."""
    if not jobs:
        return
    with _pool(min(workers, len(jobs)), threads) as pool:
        with _without_main():
            futures = [pool.submit(function, job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield _alone(function, job, died, threads)


def _alone(
    function: Callable[[Job], Result], job: Job, died: Callable[[Job], MixoptError], threads: int
) -> Result:
    with _pool(1, threads) as pool:
        try:
            with _without_main():
                future = pool.submit(function, job)
            return future.result()
        except BrokenProcessPool as error:
            raise died(job) from error


@contextmanager
def _pool(workers: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of fresh processes, none of which is left whatever happens."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_started, initargs=(threads,))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _started(threads: int) -> None:
    """Let a process end with its parent, and quietly where Ctrl-C ends both."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if threads:
        os.environ.setdefault(_THREADS, str(threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not run the caller's script once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
