"""A proxy that trains at once, and keeps what it was given: its device, its GPUs, its corpus."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from mixopt.trials import Losses, Progress, TrialResult


class Seeing:
    """Writes what it sees to a file in each trial's folder, and to a folder of notes.

    Args:
        notes: Where, a file a trial.
        meet: How many workers there must be before one of them trains.
    """

    def __init__(self, notes, meet=1):
        self.notes, self.meet = Path(notes), meet

    def group_size(self, corpus, training):
        return 1

    def train(self, trials, corpus, training, report):
        (self.notes / f"{os.getpid()}.here").touch()
        while len(list(self.notes.glob("*.here"))) < self.meet:
            time.sleep(0.05)
        report(Progress(0, training.tokens * len(trials)))
        for trial in trials:
            seen = {
                "pid": os.getpid(),
                "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "device": training.device,
                "files": training.files,
            }
            (self.notes / f"{trial.name}.json").write_text(json.dumps(seen))
            own = Path(training.files, trial.name)
            own.mkdir(parents=True)
            (own / "seen.json").touch()
        return [_result(trial, corpus, training) for trial in trials]


def _result(trial, corpus, training):
    loss = dict.fromkeys(corpus.evaluation_names, 1 + trial.mixture["code"])
    losses = Losses(training.tokens, loss, loss)
    return TrialResult(trial.name, "finished", training.tokens, 5, 0.1, losses)
