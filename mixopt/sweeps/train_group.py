"""The program that trains the folder of a group (mixopt.sweeps.group_folder).

    python -P -m mixopt.sweeps.train_group FOLDER
    python -P -m mixopt.sweeps.train_group --of PID

The second takes folders from standard input, a line each, so that imports, proxy and corpus stay
warm between groups, and ends with the process that it is of. What a proxy prints goes to standard
error. A result is written whatever the proxy does, unless this process is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from mixopt.corpus import Corpus, corpus_hash
from mixopt.errors import ConfigError, CorpusError, MixoptError
from mixopt.sweeps.contract import Job, Place
from mixopt.sweeps.devices import PLACE, place_here
from mixopt.sweeps.group_folder import (
    RESULT,
    Beat,
    Group,
    GroupResult,
    job_to_json,
    write_beat,
    write_result,
)
from mixopt.sweeps.trial_files import marked, result_to_json
from mixopt.system import host_name
from mixopt.trials import (
    MAX_LOSS,
    Doing,
    Losses,
    Progress,
    Proxy,
    Trial,
    TrialResult,
    listed,
    make_proxy,
)

MIN_SECONDS = 0.2  # between two beats, however often a proxy reports
MAX_REASON = 2000  # characters
# The names that torch's and other libraries' errors have where memory is too short.
_MEMORY_ERRORS = ("OutOfMemoryError", "MemoryError")
Loaded = tuple[str, Proxy, Corpus]


def main() -> None:
    """Train the folder of the command line, or those of standard input until it closes."""
    os.dup2(2, 1)
    if sys.argv[1] != "--of":
        train_folder(Path(sys.argv[1]), None, None)
        return
    loaded: Loaded | None = None
    for line in sys.stdin:
        loaded = train_folder(Path(line.rstrip("\n")), int(sys.argv[2]), loaded)


def train_folder(folder: Path, parent: int | None, loaded: Loaded | None) -> Loaded | None:
    """Train a folder, and write what became of it."""
    group = Group.read(folder)
    given = os.environ.get(PLACE)
    place = Place(**json.loads(given)) if given else place_here(group.job.training.device)
    if place.gpus and group.job.training.device != "cpu":
        training = replace(group.job.training, device="cuda")
        group = replace(group, job=replace(group.job, training=training))
    trials = group.trials[: group.sizes.get(place.kind, len(group.trials))]
    heart = Heart(folder, place, parent, group.beat_every)
    if parent is None:
        signal.signal(signal.SIGTERM, lambda *_: heart.give_back(len(trials)))
    try:
        loaded = _loaded(group.job, loaded)
        result = _trained(loaded, group.job, trials, heart)
    except Exception as error:  # a third party's proxy may raise anything
        result = failure(error)
    heart.end(result.model_copy(update={"trained": len(trials)}))
    if result.fault is not None and parent is not None:
        os.execv(sys.executable, sys.orig_argv)  # what it still holds of the memory goes
    return loaded


def failure(error: Exception) -> GroupResult:
    """Return the result that an exception is."""
    if isinstance(error, _OtherCorpusError):
        return GroupResult(error=str(error), refuses_corpus=True)
    if isinstance(error, MixoptError):
        return GroupResult(error=str(error))
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_REASON]
    return GroupResult(error=text, fault="memory" if is_of_memory(error) else None)


def is_of_memory(error: BaseException | None) -> bool:
    """Tell whether an exception, or what it was raised from, says that memory is too short."""
    while error is not None:
        if any(kind.__name__ in _MEMORY_ERRORS for kind in type(error).__mro__):
            return True
        if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
            return True
        error = error.__cause__
    return False


class Heart:
    """Writes what the worker does: as it moves on, and every so often from a thread of its own.

    A thread of the process stops with the process, so that a beat means that the process runs.
    The number of moves says whether its main thread does.
    """

    def __init__(self, folder: Path, place: Place, parent: int | None, every: float) -> None:
        self._folder, self._parent, self._every = folder, parent, every
        self._beat, self._sent = Beat(place=place), 0.0
        self._begun, self._computed = time.monotonic(), _cpu_seconds()
        self._lock, self._over = threading.RLock(), threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)
        self._thread.start()

    def begin(self, doing: Doing) -> None:
        """Note that something begins."""
        self.report(Progress(0, 0, doing))

    def report(self, progress: Progress) -> None:
        """Note the progress of a group."""
        doing: Doing = progress.doing if progress.doing in get_args(Doing) else "training"
        with self._lock:
            before = self._beat
            done, total = int(progress.done), int(progress.total)
            changes = {"doing": doing, "done": done, "total": total, "moves": before.moves + 1}
            self._beat = before.model_copy(update=changes)
            if doing != before.doing or time.monotonic() - self._sent > MIN_SECONDS:
                self._write()

    def end(self, result: GroupResult) -> None:
        """Stop beating, and write the result, unless nobody wants it any more."""
        with self._lock:
            self._over.set()
            update = {**self._spent(), "place": self._beat.place}
            if self._folder.exists() and not (self._folder / RESULT).exists():
                write_result(self._folder, result.model_copy(update=update))
        self._thread.join()

    def give_back(self, trials: int) -> None:
        """End this process, which its scheduler has told to stop."""
        reason = f"the task was told to stop on {host_name()}"
        self._over.set()
        self.end(GroupResult(error=reason, fault="lost", trained=trials))
        os._exit(128 + signal.SIGTERM)

    def _beat_on(self) -> None:
        while not self._over.wait(self._every):
            orphaned = self._parent is not None and os.getppid() != self._parent
            if orphaned or not self._folder.exists():
                os._exit(1)
            with self._lock:
                if not self._over.is_set():
                    self._write()

    def _write(self) -> None:
        self._sent = time.monotonic()
        update = {**self._spent(), "number": self._beat.number + 1}
        self._beat = self._beat.model_copy(update=update)
        write_beat(self._folder, self._beat)

    def _spent(self) -> dict[str, float]:
        return {
            "seconds": time.monotonic() - self._begun,
            "cpu": _cpu_seconds() - self._computed,
        }


def _cpu_seconds() -> float:
    """Return for how long this process and those it has waited for have computed."""
    return sum(os.times()[:4])


def _loaded(job: Job, before: Loaded | None) -> Loaded:
    """Return the proxy and the corpus of a job, with what it is known by."""
    key = json.dumps(job_to_json(job), sort_keys=True)
    if before is not None and before[0] == key:
        return before
    proxy = make_proxy(job.proxy, job.options)
    if job.training.target_tokens is not None and not getattr(proxy, "simulates_epochs", False):
        raise ConfigError(
            f"proxy.simulate_epochs: proxy {job.proxy!r} cannot limit its domains to pools; leave"
            " it out"
        )
    return key, proxy, _corpus(job)


def _corpus(job: Job) -> Corpus:
    """Open the corpus: its owner has verified the hashes, and the sizes are checked again."""
    if job.corpus_hash and not job.corpus.is_dir():
        raise _OtherCorpusError(
            f"{job.corpus}: is not visible on {host_name()}; give --out a folder that all nodes"
            " share"
        )
    if job.corpus_hash and corpus_hash(job.corpus) != job.corpus_hash:
        raise _OtherCorpusError(
            f"{job.corpus}: differs on {host_name()} from the corpus that the sweep started with;"
            " if it was prepared again, interrupt the sweep and run it again"
        )
    return Corpus.open(job.corpus, verify=job.verify)


class _OtherCorpusError(CorpusError):
    """This host sees another corpus than the owner of the sweep, or none."""


def _trained(loaded: Loaded, job: Job, trials: Sequence[Trial], heart: Heart) -> GroupResult:
    """Train some trials; without any, ask how many go together."""
    _, proxy, corpus = loaded
    if not trials:
        heart.begin("compiling")
        return GroupResult(tuned=max(1, int(proxy.group_size(corpus, job.training))))
    heart.begin("training")
    with marked([trial.name for trial in trials], sys.stderr):
        results = proxy.train(trials, corpus, job.training, heart.report)
    if [result.trial for result in results] != [trial.name for trial in trials]:
        raise MixoptError("the proxy returned results of other trials than it was given")
    content = [result_to_json(believed(one, corpus)) for one in results]
    json.dumps(content, allow_nan=False)  # what is not plain values is the proxy's error
    return GroupResult(results=content)


def believed(result: TrialResult, corpus: Corpus) -> TrialResult:
    """Return a result as it can be believed."""
    curve = tuple(losses for losses in result.curve if _is_finite(losses))
    losses = result.losses
    if losses is not None and not _is_finite(losses):
        losses = None
    if result.status != "finished":
        return replace(result, losses=losses, curve=curve)
    if losses is None:
        reason = "the proxy reports a loss that is not finite"
        return replace(result, status="diverged", losses=None, curve=curve, reason=reason)
    by_domain = losses.nats_per_token or losses.bits_per_byte
    odd = sorted(by_domain.keys() ^ set(corpus.evaluation_names), key=str)
    of_tasks = sorted(losses.tasks.keys() ^ set(corpus.task_columns)) if losses.tasks else []
    if not odd and not of_tasks:
        return replace(result, curve=curve)
    reason = f"the proxy's losses are not those of the corpus's evaluation domains: {listed(odd)}"
    if not odd:
        reason = f"the proxy's metrics are not those of the corpus's tasks: {listed(of_tasks)}"
    return replace(result, status="failed", losses=None, curve=(), reason=reason)


def _is_finite(losses: Losses) -> bool:
    by_domain = (*losses.nats_per_token.values(), *losses.bits_per_byte.values())
    return all(abs(value) <= MAX_LOSS for value in (*by_domain, *losses.tasks.values()))


if __name__ == "__main__":
    main()
