"""The worker program: trains the folder of a group (mixopt.sweeps.groups).

    python -P -m mixopt.sweeps.train_group FOLDER
    python -P -m mixopt.sweeps.train_group --of PID

The second form reads folders from standard input, one a line, keeps imports, proxy and corpus
loaded between groups, and exits with the process PID. Output of the proxy goes to the folder's log.
A result is written whatever the proxy raises, unless this process is killed.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from mixopt.corpus import Corpus, corpus_hash
from mixopt.errors import CorpusError, MixoptError, plain_line
from mixopt.sweeps.contract import Job
from mixopt.sweeps.groups import GROUP, Beat, Group, GroupResult, log_of, write_beat, write_result
from mixopt.sweeps.local import DEVICE_VARIABLE, find_gpus
from mixopt.sweeps.proxy import Doing, Progress, Proxy, make_proxy
from mixopt.system import host_name, read_json
from mixopt.trials import MAX_LOSS, Losses, Trial, TrialResult, listed

MAX_REASON = 2000  # characters
BEAT_EVERY = 0.5  # seconds
# Names of out-of-memory errors of Python, torch and other libraries.
_MEMORY_ERRORS = ("OutOfMemoryError", "MemoryError")


class LoadedJob(NamedTuple):
    """A job with its proxy and corpus, which the next group of the same job reuses."""

    job: Job
    proxy: Proxy
    corpus: Corpus


def main() -> None:
    """Train the folder of the command line, or those of standard input until it closes."""
    is_warm = sys.argv[1] == "--of"
    parent = int(sys.argv[2]) if is_warm else None
    folders = sys.stdin if is_warm else sys.argv[1:]
    loaded: LoadedJob | None = None
    for folder in folders:
        loaded = train_folder(Path(folder.rstrip("\n")), parent, loaded)


def train_folder(folder: Path, parent: int | None, loaded: LoadedJob | None) -> LoadedJob | None:
    """Train a folder and write its result; return what the next folder can reuse."""
    _print_to(log_of(folder))
    group: Group = read_json(folder / GROUP, Group)
    job = group.job
    trials = [Trial(**dict(shape)) for shape in group.trials]
    names = [trial.name for trial in trials]
    beat = Beat(trials=names, **_device_fields(job.training.device))
    if beat.gpus:
        job = replace(job, training=replace(job.training, device="cuda"))
    heartbeat = Heartbeat(folder, beat, parent)
    try:
        if loaded is None or loaded.job != job:
            loaded = load_job(job)
        result = train_trials(loaded, trials, heartbeat)
    except Exception as error:  # a third party's proxy may raise anything
        result = failure(error)
    heartbeat.end(result)
    if result.fault is not None and parent is not None:
        os.execv(sys.executable, sys.orig_argv)  # frees the memory of the failed group
    return loaded


def _print_to(log: Path) -> None:
    """Redirect the output of this process and its children to a log."""
    with suppress(OSError):  # a full disk does not stop training
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as stream:
            for number in (1, 2):
                os.dup2(stream.fileno(), number)


def _device_fields(device: str) -> dict[str, Any]:
    """Return node and device: from the environment, or all GPUs that the scheduler shows."""
    fields: dict[str, Any] = {"node": host_name()}
    if DEVICE_VARIABLE in os.environ:
        fields |= json.loads(os.environ[DEVICE_VARIABLE])
    elif device != "cpu":
        gpus = find_gpus()
        if gpus:
            fields |= {"kind": gpus[0].model, "gpus": float(len(gpus))}
    return fields


def failure(error: Exception) -> GroupResult:
    """Return the result of a group whose training raised an exception."""
    if isinstance(error, MixoptError):
        return GroupResult(error=str(error))
    text = plain_line(f"{type(error).__name__}: {' '.join(str(error).split())}")[:MAX_REASON]
    if is_memory_error(error):
        return GroupResult(error=text, fault="memory")
    return GroupResult(error=text)


def is_memory_error(error: BaseException | None) -> bool:
    """Return whether an exception or one of its causes is an out-of-memory error."""
    while error is not None:
        if any(kind.__name__ in _MEMORY_ERRORS for kind in type(error).__mro__):
            return True
        if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
            return True
        error = error.__cause__
    return False


class Heartbeat:
    """Writes heartbeats; exits the process when its owner or its folder is gone."""

    def __init__(self, folder: Path, beat: Beat, parent: int | None) -> None:
        self._folder = folder
        self._beat = beat
        self._parent = parent
        self._started = time.monotonic()
        self._cpu_before = _cpu_seconds()
        self._lock = threading.Lock()
        self._has_ended = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat_until_end, daemon=True)
        self._thread.start()

    def report(self, progress: Progress) -> None:
        """Record the progress of a group."""
        beat = self._beat
        is_known = progress.doing in get_args(Doing)
        changes = {
            "doing": progress.doing if is_known else "training",
            "done": int(progress.done),
            "total": int(progress.total),
            "moves": beat.moves + 1,
        }
        self._beat = beat.model_copy(update=changes)
        if self._beat.doing != beat.doing:  # patience depends on it
            self._write()

    def end(self, result: GroupResult) -> None:
        """Stop the heartbeat and write the result, unless the folder is gone."""
        self._has_ended.set()
        self._thread.join()
        if self._folder.exists():
            self._write()
            write_result(self._folder, result)

    def _beat_until_end(self) -> None:
        while not self._has_ended.wait(BEAT_EVERY):
            is_orphan = self._parent is not None and os.getppid() != self._parent
            if is_orphan or not self._folder.exists():
                os._exit(1)
            self._write()

    def _write(self) -> None:
        with self._lock:
            spent = {
                "seconds": time.monotonic() - self._started,
                "cpu": _cpu_seconds() - self._cpu_before,
            }
            write_beat(self._folder, self._beat.model_copy(update=spent))


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and its finished children."""
    return sum(os.times()[:4])


def load_job(job: Job) -> LoadedJob:
    """Load proxy and corpus of a job; the owner has verified the corpus's hashes."""
    present = corpus_hash(job.corpus) if job.corpus.is_dir() else None
    if job.corpus_hash not in ("", present):
        raise CorpusError(
            f"{job.corpus}: differs from the corpus that the sweep started with, on {host_name()};"
            " give --out a folder that all nodes share, and if the corpus was prepared again,"
            " interrupt the sweep and run it again"
        )
    proxy = make_proxy(job.proxy, job.options)
    return LoadedJob(job, proxy, Corpus.open(job.corpus, verify=False))


def train_trials(loaded: LoadedJob, trials: Sequence[Trial], heartbeat: Heartbeat) -> GroupResult:
    """Train the trials, or measure the group size if there are none."""
    job, proxy, corpus = loaded
    if not trials:
        heartbeat.report(Progress(0, 0, "compiling"))
        return GroupResult(tuned=_group_size(loaded, heartbeat))
    heartbeat.report(Progress(0, 0, "training"))
    results = proxy.train(trials, corpus, job.training, heartbeat.report)
    if [result.trial for result in results] != [trial.name for trial in trials]:
        raise MixoptError("the proxy returned results of other trials than it was given")
    results = [validated(result, corpus) for result in results]
    if job.training.part[1] < 1:
        results = [_stopped(result) for result in results]
    return GroupResult(results=results)


def _group_size(loaded: LoadedJob, heartbeat: Heartbeat) -> int:
    """Rehearse the training if the proxy can, and return the number of trials in a group."""
    job, proxy, corpus = loaded
    rehearse = getattr(proxy, "rehearse", None)
    if callable(rehearse):
        rehearse(corpus, job.training, heartbeat.report)
    return max(1, int(proxy.group_size(corpus, job.training)))


def _stopped(result: TrialResult) -> TrialResult:
    """Return the result of a trial that was trained to a part of its tokens."""
    if result.has_failed:
        return result
    return replace(result, status="stopped")


def validated(result: TrialResult, corpus: Corpus) -> TrialResult:
    """Validate a proxy's result; change its status if losses are missing, odd or not finite."""
    losses = result.losses
    if losses is not None and not _is_finite(losses):
        losses = None
    reason = None if result.reason is None else plain_line(str(result.reason))
    curve = tuple(filter(_is_finite, result.curve))
    result = replace(result, losses=losses, curve=curve, reason=reason)
    if result.has_failed:
        return result
    if losses is None:
        reason = "the proxy reports a loss that is not finite"
        return replace(result, status="diverged", reason=reason)
    reason = _name_error(losses, corpus)
    if reason is not None:
        return replace(result, status="failed", losses=None, curve=(), reason=reason)
    return result


def _name_error(losses: Losses, corpus: Corpus) -> str | None:
    """Return an error if losses or metrics are not those of the corpus; None: they are."""
    domains = losses.nats_per_token or losses.bits_per_byte
    odd = domains.keys() ^ set(corpus.evaluation_names)
    if odd:
        names = listed(sorted(odd, key=str))
        return f"the proxy's losses are not those of the corpus's evaluation domains: {names}"
    odd = losses.tasks.keys() ^ set(corpus.task_columns)
    if losses.tasks and odd:
        names = listed(sorted(odd, key=str))
        return f"the proxy's metrics are not those of the corpus's tasks: {names}"
    return None


def _is_finite(losses: Losses) -> bool:
    by_domain = (*losses.nats_per_token.values(), *losses.bits_per_byte.values())
    return all(abs(value) <= MAX_LOSS for value in (*by_domain, *losses.tasks.values()))


if __name__ == "__main__":
    main()
