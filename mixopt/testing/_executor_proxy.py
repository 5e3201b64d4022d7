"""The proxy of `check_executor`: it trains at once, or behaves as a trial's name says.

Its losses follow from the mixture, the seed and the first tokens of the corpus, so that results
tell which trial was trained on what.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mixopt.corpus import Corpus
from mixopt.system import host_name, start_of
from mixopt.trials import Losses, Progress, Training, Trial, TrialResult

PROXY = f"{__name__}:CheckedProxy"
REASON = "this trial always raises"
SLOW, STEADY = 30.0, 6.0  # seconds
STEPS = 12  # of a steady trial


class CheckedProxy:
    """Trains at once.

    A trial whose name begins with `raises`, `memory`, `killed`, `exits`, `slow` or `steady` makes
    it raise, run out of memory, be killed, end, take half a minute, or report for some seconds.

    Args:
        log: A folder in which each process that trains leaves a file.
        size: How many trials train together.
    """

    def __init__(self, log: str, size: int = 2) -> None:
        self.log, self.size = log, size

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return the size."""
        return self.size

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train, or do what a name says."""
        total = training.tokens * len(trials)
        self._leave_name()
        report(Progress(0, total))
        for trial in trials:
            kind = trial.name.partition("_")[0]
            for step in range(STEPS if kind == "steady" else 0):
                time.sleep(STEADY / STEPS)
                report(Progress(total * step // STEPS, total))
            _happen(kind)
        report(Progress(total, total))
        return [checked_result(trial, corpus, training) for trial in trials]

    def _leave_name(self) -> None:
        pid = os.getpid()
        name = {"host": host_name(), "pid": pid, "started": start_of(pid) or ""}
        path = Path(self.log) / f"{host_name()}-{pid}.json"
        path.write_text(json.dumps(name), encoding="utf-8")


def checked_result(trial: Trial, corpus: Corpus, training: Training) -> TrialResult:
    """Return the result of a trial that nothing happens to."""
    read = sum(int(domain.validation.read(0, 64).sum()) for domain in corpus.domains)
    shares = sum(place * share for place, share in enumerate(trial.mixture.values(), start=1))
    loss = 1.0 + read / 1e6 + trial.seed / 100 + shares
    by_name = {name: loss + place for place, name in enumerate(corpus.evaluation_names)}
    losses = Losses(training.tokens, by_name, by_name)
    return TrialResult(trial.name, "finished", training.tokens, 7, 0.0, losses)


def _happen(name: str) -> None:
    if name == "raises":
        raise ValueError(REASON)
    if name == "memory":
        raise MemoryError("no room for this trial")
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "exits":
        os._exit(3)
    if name == "slow":
        time.sleep(SLOW)
