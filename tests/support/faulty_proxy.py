"""A proxy that trains at once, and does to one trial's worker what it is told."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from mixopt.errors import CorpusError
from mixopt.trials import Losses, Progress, TrialResult

STEPS = 4


class Faulty:
    """Notes each training that begins and ends; one that meets the trial `at` goes wrong.

    Args:
        log: The notes, a line each: what, when, trials.
        size: How many trials train together.
        seconds: Of one training.
        fault: What happens: `raises`, `refuses`, `stop`, `kill`, `hang` or `sleep`; to the
            corpus: `damage`, `replace` or `mode`.
        at: The trial that it happens to.
        times: How often; a file counts.
        fits: The largest group that memory is enough for.
        lie: What is returned for the group of the trial `at` in place of its results.
        meet: How many groups must have begun before one of them trains.
    """

    def __init__(self, log, size=2, seconds=0.0, fault="", at="", times=1, fits=64, lie="", meet=1):
        self.lie, self.meet = lie, meet
        self.log, self.size, self.seconds = Path(log), size, seconds
        self.fault, self.at, self.times, self.fits = fault, at, times, fits

    def group_size(self, corpus, training):
        return self.size

    def train(self, trials, corpus, training, report):
        names = [trial.name for trial in trials]
        total = training.tokens * len(trials)
        self._note("began", names, os.getpid(), training.device)
        while self.log.read_text().count("began ") < self.meet:
            time.sleep(0.05)
        if self.at in names and self._happens():
            self._note("fault", names)
            shard = next((corpus.path / "code" / "train").glob("*.bin"))
            getattr(self, f"_{self.fault}")(report, total, shard)
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
        changed = {
            "missing": others,
            "turned": results[::-1],
            "none": None,
            "nan": [replace(first, losses=_times(first.losses, float("nan"))), *others],
            "names": [replace(first, losses=Losses(1, {"web": 1.0}, {})), *others],
            "status": [replace(first, status="splendid"), *others],
            "object": [replace(first, tokens=object()), *others],
            "files": [replace(first, reason=training.files), *others],
            "long": [replace(first, reason="x" * 30_000_000), *others],
        }
        return changed[self.lie]

    def _happens(self):
        if not self.fault:
            return False
        count = self.log.with_suffix(".count")
        before = int(count.read_text()) if count.exists() else 0
        count.write_text(str(before + 1))
        return before < self.times

    def _note(self, what, names, *more):
        seen = [what, time.time(), ",".join(names), *more, os.environ.get("CUDA_VISIBLE_DEVICES")]
        with self.log.open("a") as log:
            log.write(" ".join(map(str, seen)) + "\n")

    def _raises(self, report, total, shard):
        raise ValueError("no such\nlayer \udcff")

    def _refuses(self, report, total, shard):
        raise CorpusError("a domain has no tokens")

    def _damage(self, report, total, shard):
        with shard.open("r+b") as stream:
            stream.write(bytes([shard.read_bytes()[0] ^ 1]))

    def _replace(self, report, total, shard):
        content = shard.read_bytes()
        shard.unlink()
        shard.write_bytes(content)

    def _mode(self, report, total, shard):
        shard.chmod(0o640)

    def _stop(self, report, total, shard):
        os.kill(os.getpid(), signal.SIGSTOP)

    def _kill(self, report, total, shard):
        os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, report, total, shard):
        """Report once, and then compute for ever."""
        report(Progress(0, total))
        while True:
            sum(range(1000))

    def _sleep(self, report, total, shard):
        """Wait for what never comes, before anything is reported."""
        time.sleep(3600)


def _times(losses, factor):
    return Losses(losses.tokens, *(dict.fromkeys(losses.nats_per_token, factor) for _ in range(2)))


def _result(trial, corpus, training):
    loss = dict.fromkeys(corpus.evaluation_names, 1 + trial.mixture["code"])
    losses = Losses(training.tokens, loss, loss)
    return TrialResult(trial.name, "finished", training.tokens, 5, 0.1, losses)
