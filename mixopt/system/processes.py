"""This machine: its processes, cores and versions, and work in other processes.

Libraries in C end the whole process on some damaged files, and a large job may be killed for its
memory: in `in_processes` that is another process's end, and the job that it had is named.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from mixopt.errors import MixoptError, RunError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

Answer = TypeVar("Answer")
Job = TypeVar("Job")
Result = TypeVar("Result")
ANSWER_SECONDS = 30.0  # that a server, a cluster or a scheduler has for an answer
MAX_ROWS = 512  # of a matrix that BLAS factors faster in one thread
_THREADS = "RAYON_NUM_THREADS"  # of Hugging Face's tokenizers, in one process

# The folders of an absolute path; not those of an address or of a relative path.
_FOLDERS = re.compile(
    r"(?<![\w:/.~\\-])(?:file://)?(?:~?/|[A-Za-z]:[\\/])(?:[^\s/\\'\"<>|]+[/\\])+"
)

# What the numbers of a run depend on.
PACKAGES = (
    "mixopt",
    "numpy",
    "polars",
    "scipy",
    "scikit-learn",
    "lightgbm",
    "torch",
    "datasets",
    "tokenizers",
    "mlflow",
)


def package_versions() -> dict[str, str]:
    """Return the installed versions of Python and of the packages that a run depends on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """Return the kind of machine in words: system, architecture and usable cores."""
    return f"{platform.system()} {platform.machine()}, {usable_cores()} cores"


def git_commit() -> str | None:
    """Return the commit of the working directory, with `+` where files differ from it.

    git may run programs that the repository's own configuration names.
    """
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def without_folders(text: str) -> str:
    """Return a text with the folders of absolute paths left out: `.../name`."""
    return _FOLDERS.sub("\N{HORIZONTAL ELLIPSIS}/", text)


def _git(*arguments: str) -> str:
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=5)
    return done.stdout.decode(errors="replace").strip()


@contextmanager
def one_blas_thread(rows: int) -> Iterator[None]:
    """Let BLAS use one thread while the block runs, and as many as before after it."""
    if rows > MAX_ROWS:
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with suppress(ImportError):
        importlib.import_module("scipy.linalg")  # has a BLAS of its own, which must be there by now
    with threadpool_limits(1, user_api="blas"):
        yield


def host_name() -> str:
    """Return the name of this host."""
    return socket.gethostname()


def usable_cores() -> int:
    """Count the cores that this process may use, a container's limit included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores or 1, max(1, int(quota) // int(period)))
    return cores or 1


def process_space() -> str:
    """Return what tells containers of one host name apart; empty where the system has none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def start_of(pid: int) -> str | None:
    """Return when a process began, as the system counts; None where it is not there, or unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def is_running(pid: int, started: str = "") -> bool:
    """Tell whether a process of this host is there, and is the one that began then."""
    if start_of(os.getpid()) is not None:
        now = start_of(pid)
        return now is not None and started in {"", now}
    try:  # a system without /proc, such as macOS
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def within(what: str, call: Callable[[], Answer], seconds: float = ANSWER_SECONDS) -> Answer:
    """Return the answer of a call to somebody else, however slowly they drip."""
    from concurrent.futures import Future, wait

    answer = Future[Answer]()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([answer], seconds).done:
        raise RunError(f"{what}: no answer in {seconds:g} s")
    return answer.result()


def in_processes(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    died: Callable[[Job], MixoptError],
    threads: int = 0,
) -> Iterator[Result]:
    """Give the results of a function in the order of its jobs, several processes at work.

    None of them outlives the caller, and the job of one that dies is named by `died`.
    """
    from concurrent.futures.process import BrokenProcessPool

    if not jobs:
        return
    with _pool(min(workers, len(jobs)), threads) as pool:
        with _without_main():
            futures = [pool.submit(function, job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                if len(jobs) == 1:
                    raise died(job) from error
                # Whichever job it was, all that were not done yet are tried alone.
                yield from in_processes(function, [job], 1, died=died, threads=threads)


@contextmanager
def _pool(workers: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool of fresh processes, none of which is left whatever happens."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

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
    import multiprocessing

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
