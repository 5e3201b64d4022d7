"""The process that trains groups of trials: `python -m mixopt.sweeps.worker`, JSON by lines.

In:  {"setup": {...}} once, then {"tune": true} or {"group": [...]} as often as there is work.
Out: what mixopt.sweeps.messages lists: heartbeats while it works, and one answer a request.

A process of its own keeps each worker at one thread, survives a crash of another, and needs
no guard in the caller's script. What the proxy prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO, get_args

from mixopt.corpus import Corpus, corpus_hash
from mixopt.errors import ConfigError, CorpusError, MixoptError
from mixopt.sweeps.finite_results import finite, on_domains
from mixopt.sweeps.worker_logs import marked
from mixopt.system import host_name
from mixopt.trials import (
    Doing,
    Progress,
    Proxy,
    Training,
    make_proxy,
    result_to_json,
    trial_from_json,
)

LEAST_SECONDS = 0.1  # between two beats, however often a proxy reports
# The names that torch's and other libraries' errors have where memory is too short.
_LONGEST_REASON = 2000  # characters
_MEMORY_ERRORS = ("OutOfMemoryError", "MemoryError")


def main() -> None:
    """Serve requests on standard input until it closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    heart = Heart(answers)
    work: Work | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "setup" in request:
                work = Work(request["setup"], heart)
                heart.start(float(request["setup"]["beat"]))
                continue
            if work is None:
                raise MixoptError("the worker got work before its setup")
            answer = work.answer(request)
        except Exception as error:  # a third party's proxy may raise anything
            answer = failure(error)
        heart.answer(answer)


def failure(error: Exception) -> dict[str, Any]:
    """Return the answer that an exception is."""
    if isinstance(error, MixoptError):
        return {"error": str(error)}
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_REASON]
    return {"error": text, "fault": "memory"} if is_of_memory(error) else {"error": text}


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
    """Sends what the worker does: as it moves on, and every so often from a thread of its own.

    A thread of the process stops with the process, so that a beat means that the process runs.
    The number of moves says whether its main thread does.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.Lock()
        self._doing: Doing | None = "starting"
        self._done = self._total = self._moves = 0
        self._sent = 0.0

    def start(self, every: float) -> None:
        """Beat every so many seconds from now on, while there is something to do."""
        threading.Thread(target=self._beat_on, args=(every,), daemon=True).start()

    def begin(self, doing: Doing) -> None:
        """Note that something begins."""
        with self._lock:
            self._doing, self._done, self._total = doing, 0, 0
            self._moves += 1
            self._beat()

    def report(self, progress: Progress) -> None:
        """Note the progress of a group."""
        doing: Doing = progress.doing if progress.doing in get_args(Doing) else "training"
        with self._lock:
            changed = doing != self._doing
            self._doing, self._done, self._total = doing, int(progress.done), int(progress.total)
            self._moves += 1
            if changed or time.monotonic() - self._sent > LEAST_SECONDS:
                self._beat()

    def answer(self, answer: dict[str, Any]) -> None:
        """Send an answer, and rest until something begins."""
        try:
            line = _line(answer)
        except (TypeError, ValueError) as error:  # a result that is not plain values
            line = _line(failure(error))
        with self._lock:
            self._doing = None
            self._send(line)

    def _beat_on(self, every: float) -> None:
        while True:
            time.sleep(every)
            with self._lock:
                if self._doing is not None:
                    self._beat()

    def _beat(self) -> None:
        self._sent = time.monotonic()
        beat = {"doing": self._doing, "done": self._done, "total": self._total}
        self._send(_line({"beat": {**beat, "moves": self._moves, "cpu": time.process_time()}}))

    def _send(self, line: str) -> None:
        try:
            self._stream.write(line)
            self._stream.flush()
        except BrokenPipeError:  # the parent is gone
            os._exit(1)


class Work:
    """A proxy, a corpus and a training length, ready for groups."""

    def __init__(self, setup: dict[str, Any], heart: Heart) -> None:
        self._heart = heart
        self._setup = setup
        self._loaded: tuple[Proxy, Corpus, Training] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request asks for and return the answer."""
        self._heart.begin("starting")
        proxy, corpus, training = self._load()
        if "tune" in request:
            self._heart.begin("compiling")
            return {"tuned": max(1, int(proxy.group_size(corpus, training)))}
        trials = [trial_from_json(entry) for entry in request["group"]]
        self._heart.begin("training")
        with marked([trial.name for trial in trials], sys.stderr):
            results = proxy.train(trials, corpus, training, self._heart.report)
        names, tasks = corpus.evaluation_names, corpus.task_columns
        believed = [on_domains(finite(result), names, tasks) for result in results]
        return {"results": [result_to_json(result) for result in believed]}

    def _load(self) -> tuple[Proxy, Corpus, Training]:
        if self._loaded is None:
            proxy = make_proxy(self._setup["proxy"], self._setup["options"])
            training = Training(**self._setup["training"])
            _check_epochs(self._setup["proxy"], proxy, training)
            self._loaded = proxy, _corpus(self._setup), training
        return self._loaded


def _corpus(setup: dict[str, Any]) -> Corpus:
    """Open the corpus: its owner has verified the hashes, and the sizes are checked again."""
    path, wanted = Path(setup["corpus"]), setup["corpus_hash"]
    if wanted and not path.is_dir():
        raise CorpusError(
            f"{path}: is not visible on {host_name()}; give --out a folder that all nodes share"
        )
    if wanted and corpus_hash(path) != wanted:
        raise CorpusError(
            f"{path}: differs on {host_name()} from the corpus that the sweep started with; if it "
            "was prepared again, interrupt the sweep and run it again"
        )
    return Corpus.open(path, verify=setup["verify"])


def _line(message: dict[str, Any]) -> str:
    return json.dumps(message, allow_nan=False) + "\n"


def _check_epochs(name: str, proxy: Proxy, training: Training) -> None:
    if training.target_tokens is not None and not getattr(proxy, "simulates_epochs", False):
        raise ConfigError(
            f"proxy.simulate_epochs: proxy {name!r} cannot limit its domains to pools; leave it out"
        )


if __name__ == "__main__":
    main()
