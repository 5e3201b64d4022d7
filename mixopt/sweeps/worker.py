"""The process that trains groups of trials: `python -m mixopt.sweeps.worker`, JSON by lines.

In:  {"setup": {...}} once, then {"tune": true} or {"group": [...]} as often as there is work.
Out: {"tuned": K}, {"progress": [done, total]}, {"results": [...]} or {"error": "..."}.

A process of its own keeps each worker at one thread, survives a crash of another, and needs
no guard in the caller's script. What the proxy prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError, MixoptError
from mixopt.trials import Progress, Proxy, Training, make_proxy, result_to_json, trial_from_json


def main() -> None:
    """Serve requests on standard input until it closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    work: Work | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "setup" in request:
                work = Work(request["setup"], answers)
                continue
            if work is None:
                raise MixoptError("the worker got work before its setup")
            answer = work.answer(request)
        except MixoptError as error:
            answer = {"error": str(error)}
        except Exception as error:  # a third party's proxy may raise anything
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        _send(answers, answer)


class Work:
    """A proxy, a corpus and a training length, ready for groups."""

    def __init__(self, setup: dict[str, Any], answers: TextIO) -> None:
        self._answers = answers
        self._setup = setup
        self._loaded: tuple[Proxy, Corpus, Training] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request asks for and return the answer."""
        proxy, corpus, training = self._load()
        if "tune" in request:
            return {"tuned": proxy.group_size(corpus, training)}
        trials = [trial_from_json(entry) for entry in request["group"]]
        results = proxy.train(trials, corpus, training, self._report())
        return {"results": [result_to_json(result) for result in results]}

    def _load(self) -> tuple[Proxy, Corpus, Training]:
        if self._loaded is None:
            proxy = make_proxy(self._setup["proxy"], self._setup["options"])
            training = Training(**self._setup["training"])
            _check_epochs(self._setup["proxy"], proxy, training)
            # The parent has verified the hashes; the sizes are checked again.
            corpus = Corpus.open(Path(self._setup["corpus"]), verify=False)
            self._loaded = proxy, corpus, training
        return self._loaded

    def _report(self) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            # A parent that is gone closes the pipe; the write then ends this process.
            _send(self._answers, {"progress": [progress.done, progress.total]})

        return report


def _check_epochs(name: str, proxy: Proxy, training: Training) -> None:
    if training.target_tokens is not None and not getattr(proxy, "simulates_epochs", False):
        raise ConfigError(
            f"proxy.simulate_epochs: proxy {name!r} does not cut its domains to pools; leave it out"
        )


def _send(stream: TextIO, answer: dict[str, Any]) -> None:
    try:
        stream.write(json.dumps(answer) + "\n")
        stream.flush()
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
