"""A proxy that trains at once, and does to one trial's worker what it is told."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from mixopt.errors import CorpusError
from mixopt.sweeps import Progress
from mixopt.trials import Losses, TrialResult

STEPS = 4


class Faulty:
    """Notes each training that begins and ends; one that meets the trial `at` goes wrong.

    Args:
        log: The notes, a line each: what, when, trials.
        size: How many trials train together; it takes `seconds`.
        fault: What happens `times` times (a file counts) to the trial `at`: `raises`, `refuses`,
            `stop`, `kill`, `hang` or `sleep`; to the corpus: `damage`, `replace` or `mode`.
        fits: The largest group that memory is enough for.
        lie: What is returned for the group of the trial `at` in place of its results.
        meet: How many groups must have begun before one of them trains.
    """

    def __init__(self, log, size=2, seconds=0.0, fault="", at="", times=1, fits=64, lie="", meet=1):
        self.lie, self.meet = lie, meet
        self.log, self.size, self.seconds = Path(log), size, seconds
        self.fault, self.at, self.times, self.fits = fault, at, times, fits

    resumes = True

    def group_size(self, corpus, training):
        return self.size

    def train(self, trials, corpus, training, report):
        names = [trial.name for trial in trials]
        total = training.tokens * len(trials)
        self._note("began", names, os.getpid(), training.device)
        while self.log.read_text().count("began ") < self.meet:
            time.sleep(0.05)
        if self.fault and self.at in names and self._happens():
            self._note("fault", names)
            shard = next((corpus.path / "code" / "train").glob("*.bin"))
            _go_wrong(self.fault, report, total, shard)
        if len(trials) > self.fits:
            raise MemoryError(f"no room for {len(trials)} trials")
        for step in range(1, STEPS + 1):
            time.sleep(self.seconds / STEPS)
            report(Progress(total * step // STEPS, total))
        self._note("ended", names)
        results = [_result(trial, corpus, training) for trial in trials]
        return self._lied(results, training) if self.at in names and self.lie else results

    def _lied(self, results, training):
        """Return other results than were found."""
        first, *others = results
        no_number = dict.fromkeys(first.losses.nats_per_token, float("nan"))
        changes = {
            "nan": {"losses": Losses(first.losses.tokens, no_number, no_number)},
            "names": {"losses": Losses(1, {"web": 1.0}, {})},
            "status": {"status": "splendid"},
            "object": {"tokens": object()},
            "files": {"reason": training.files},
            "long": {"reason": "x" * 30_000_000},
        }
        if self.lie in changes:
            return [replace(first, **changes[self.lie]), *others]
        return {"missing": others, "turned": results[::-1], "none": None}[self.lie]

    def _happens(self):
        count = self.log.with_suffix(".count")
        before = int(count.read_text()) if count.exists() else 0
        count.write_text(str(before + 1))
        return before < self.times

    def _note(self, what, names, *more):
        seen = [what, time.time(), ",".join(names), *more, os.environ.get("CUDA_VISIBLE_DEVICES")]
        with self.log.open("a") as log:
            log.write(" ".join(map(str, seen)) + "\n")


def _go_wrong(fault, report, total, shard):
    content = shard.read_bytes()
    match fault:
        case "raises":
            raise ValueError("no such\nlayer \udcff")
        case "refuses":
            raise CorpusError("a domain has no tokens")
        case "damage":
            with shard.open("r+b") as stream:  # others read it meanwhile
                stream.write(bytes([content[0] ^ 1]))
        case "replace":
            shard.unlink()
            shard.write_bytes(content)
        case "mode":
            shard.chmod(0o640)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            report(Progress(0, total))
            while True:
                sum(range(1000))
        case "sleep":  # for what never comes, before anything is reported
            time.sleep(3600)


def _result(trial, corpus, training):
    begin, end = training.part
    state, tokens = Path(training.files or "", trial.name, "state"), round(end * training.tokens)
    if begin:
        assert state.read_text() == f"{begin}"
    if end < 1:
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_text(f"{end}")
    # Before the end, half of what code costs there, and 1 more.
    loss = 1 + trial.mixture["code"] if end == 1 else 2 + trial.mixture["code"] / 2
    losses = Losses(tokens, *2 * [dict.fromkeys(corpus.evaluation_names, loss)])
    return TrialResult(trial.name, "finished", tokens, 5, 0.1, losses)
