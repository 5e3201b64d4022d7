"""This machine: processes, cores, versions, and work in child processes.

C libraries crash on some damaged files, and large jobs may be killed for their memory:
`in_processes` isolates such jobs in child processes, and names the job that died.
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
ANSWER_SECONDS = 30.0  # for an answer of a server, cluster or scheduler
MAX_ROWS = 512  # of matrices that BLAS factorises faster in one thread
_THREADS = "RAYON_NUM_THREADS"  # threads of Hugging Face's tokenizers

# Folders of an absolute path, not of a URL or a relative path.
_FOLDERS = re.compile(
    r"(?<![\w:/.~\\-])(?:file://)?(?:~?/|[A-Za-z]:[\\/])(?:[^\s/\\'\"<>|]+[/\\])+"
)

# Packages that affect the results of a run.
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
    """Return the versions of Python and of the packages that affect results."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """Return system, architecture and usable cores as text."""
    return f"{platform.system()} {platform.machine()}, {usable_cores()} cores"


def git_commit() -> str | None:
    """Return the commit of the working directory, with `+` if files were changed.

    git may run programs that the repository's own configuration names.
    """
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        if _git("status", "--porcelain", "--untracked-files=no"):
            commit += "+"
    except (OSError, subprocess.SubprocessError):
        return None
    return commit


def without_folders(text: str) -> str:
    """Return a text with absolute paths shortened to `.../name`."""
    return _FOLDERS.sub("\N{HORIZONTAL ELLIPSIS}/", text)


def _git(*arguments: str) -> str:
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    result = subprocess.run(command, capture_output=True, check=True, timeout=5)
    return result.stdout.decode(errors="replace").strip()


@contextmanager
def one_blas_thread(rows: int) -> Iterator[None]:
    """Limit BLAS to one thread for the block."""
    if rows > MAX_ROWS:
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with suppress(ImportError):
        importlib.import_module("scipy.linalg")  # loads its own BLAS, which must be limited too
    with threadpool_limits(1, user_api="blas"):
        yield


def host_name() -> str:
    """Return the name of this host."""
    return socket.gethostname()


def usable_cores() -> int:
    """Return the number of cores that this process may use, including a container's limit."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0)) or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def process_space() -> str:
    """Return an identifier of the PID namespace, which separates containers; empty if unknown."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def start_of(pid: int) -> str | None:
    """Return a process's start time in system ticks; None if it is gone or unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def is_running(pid: int, started: str = "") -> bool:
    """Return whether a process of this host runs and has this start time."""
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


def within(name: str, call: Callable[[], Answer], seconds: float = ANSWER_SECONDS) -> Answer:
    """Return the result of an external call, or raise after a deadline."""
    from concurrent.futures import Future, wait

    answer = Future[Answer]()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([answer], seconds).done:
        raise RunError(f"{name}: no answer in {seconds:g} s")
    return answer.result()


def in_processes(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    died: Callable[[Job], MixoptError],
) -> Iterator[Result]:
    """Yield the results of a function on jobs, in order, computed in several processes.

    The processes end with the caller; `died` names the job of a process that died.
    """
    from concurrent.futures.process import BrokenProcessPool

    if not jobs:
        return
    with _pool(min(workers, len(jobs))) as pool:
        with _without_main():
            futures = [pool.submit(function, job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                if len(jobs) == 1:
                    raise died(job) from error
                # The job is unknown: try all unfinished jobs one by one.
                yield from in_processes(function, [job], 1, died=died)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of fresh processes, which are always ended."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    # The library's threads help when few jobs are left for many cores.
    threads = max(2, -(-usable_cores() // workers))
    pool = ProcessPoolExecutor(
        workers, context, initializer=_initialise_worker, initargs=(threads,)
    )
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _initialise_worker(threads: int) -> None:
    """Let a worker end with its parent, and quietly on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault(_THREADS, str(threads))
    end_with_parent()


def end_with_parent() -> None:
    """Let this process of a pool end as soon as its parent has died."""
    import multiprocessing

    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not execute the caller's script again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
