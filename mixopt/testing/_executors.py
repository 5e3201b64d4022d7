"""The promises of an executor (mixopt.sweeps.contract), checked by training groups on it.

The test proxy trains instantly, or fails as a trial's name says, so that the executor's handling of
worker deaths is visible; the corpus is a small one of real text.
"""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mixopt.corpus import Corpus, corpus_hash
from mixopt.errors import MixoptError
from mixopt.mixture import Mixture
from mixopt.sweeps import Executor, GroupOutcome, GroupRunner, Job, Progress, Site, Training
from mixopt.system import host_name, is_running, start_of
from mixopt.testing._promises import Promises
from mixopt.testing._tiny_corpus import tiny_corpus
from mixopt.trials import Losses, Trial, TrialResult

SIZE = 2  # trials that train together
TOKENS = 1000
ENDING = 20.0  # seconds within which all processes of an executor must end
SLOW = 30.0  # seconds of a trial
REASON = "this trial always raises"
TRAINING = Training(tokens=TOKENS, eval_tokens=TOKENS, device="cpu")
_FAULTS = {"raises": None, "memory": "memory", "killed": "died", "exits": "died"}

promise = Promises("an executor")


class CheckedProxy:
    """A proxy that trains instantly.

    A trial whose name begins with `raises`, `memory`, `killed`, `exits` or `slow` makes it raise an
    error, run out of memory, be killed, exit, or take half a minute.
    Losses depend on the mixture, the seed and the first tokens of the corpus, so that results
    show which trial was trained on which corpus.

    Args:
        log: A folder in which each training process writes a file.
    """

    def __init__(self, log: str) -> None:
        self.log = log

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return two."""
        return SIZE

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train, or fail as the names of trials say."""
        total = training.tokens * len(trials)
        self._write_process()
        report(Progress(0, total))
        for trial in trials:
            match trial.name.partition("_")[0]:
                case "raises":
                    raise ValueError(REASON)
                case "memory":
                    raise MemoryError("no room for this trial")
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "exits":
                    os._exit(3)
                case "slow":
                    time.sleep(SLOW)
        report(Progress(total, total))
        return [checked_result(trial, corpus, training) for trial in trials]

    def _write_process(self) -> None:
        pid = os.getpid()
        process = {"host": host_name(), "pid": pid, "started": start_of(pid) or ""}
        path = Path(self.log) / f"{host_name()}-{pid}.json"
        path.write_text(json.dumps(process), encoding="utf-8")


def checked_result(trial: Trial, corpus: Corpus, training: Training) -> TrialResult:
    """Return the result of a trial that does not fail."""
    read = sum(int(domain.validation.read(0, 64).sum()) for domain in corpus.domains)
    shares = sum(k * share for k, share in enumerate(trial.mixture.values(), start=1))
    loss = 1.0 + read / 1e6 + trial.seed / 100 + shares
    by_name = {name: loss + k for k, name in enumerate(corpus.evaluation_names)}
    losses = Losses(training.tokens, by_name, by_name)
    return TrialResult(trial.name, "finished", training.tokens, 7, 0.0, losses)


def check_executor(
    factory: Callable[..., Executor],
    *,
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    seconds: float = 120.0,
) -> None:
    """Check that an executor keeps its promises, by training about fifteen instant trials.

    Args:
        factory: Returns an executor, called as `factory(site, **options)`.
        options: Options of the executor.
        folder: A folder visible to all workers; None: a temporary folder.
        seconds: Time limit of each sweep.

    Raises:
        AssertionError: A promise is broken; the message names it and the observed behaviour.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        place = (folder or Path(temporary)).resolve()
        (place / "trained_by").mkdir(parents=True, exist_ok=True)
        bench = _Bench(factory, options or {}, tiny_corpus(place / "corpus"), place, seconds)
        _check_options(bench)
        _check_sweep(bench)
        _check_corpus(bench)
        _check_leaving(bench)


@dataclass(frozen=True)
class _Bench:
    """The set-up of the checks; the folder `trained_by` has a file of each training process."""

    factory: Callable[..., Executor]
    options: Mapping[str, Any]
    corpus: Corpus
    folder: Path
    seconds: float

    def runner(self, name: str, of_hash: str = "", **more: Any) -> GroupRunner:
        """Return a runner on a new executor, for a new sweep; `more` are further options."""
        folder = self.folder / name / "trials"  # as in a run directory
        folder.mkdir(parents=True)
        executor = self.factory(Site(folder, device="cpu", workers=2), **self.options, **more)
        path = self.corpus.path
        options = {"log": str(self.folder / "trained_by")}
        job = Job(f"{__name__}:CheckedProxy", options, path, TRAINING, of_hash or corpus_hash(path))
        return GroupRunner(job, folder, executor, self.seconds)

    def collect(self, outcomes: Iterator[GroupOutcome]) -> list[GroupOutcome]:
        """Return all outcomes, within the time limit."""
        collected = Future[list[GroupOutcome]]()

        def collect() -> None:
            try:
                collected.set_result(list(outcomes))
            except BaseException as error:  # raised again in the waiting thread
                collected.set_exception(error)

        threading.Thread(target=collect, daemon=True).start()
        ended = wait([collected], self.seconds).done
        broken = f"no result after {self.seconds:g} s"
        promise(ended, "each folder ends, with or without a result", broken)
        return collected.result()

    def processes(self) -> list[int]:
        """Return the training processes of this host that still run."""
        files = self.folder.glob("trained_by/*.json")
        processes = [json.loads(path.read_text()) for path in files]
        local = [p for p in processes if p["host"] == host_name()]
        return [p["pid"] for p in local if is_running(p["pid"], p["started"])]


def _trials_named(*names: str) -> list[Trial]:
    """Return trials of these names, each with its own mixture and seed."""
    trials = []
    for number, name in enumerate(names):
        share = (1 + number % 9) / 10
        trials.append(Trial(name, Mixture({"code": share, "manual": 1 - share}), seed=number))
    return trials


def _check_options(bench: _Bench) -> None:
    with suppress(TypeError, MixoptError):
        bench.runner("options", no_such_option=1)
        promise(False, "an unknown option is refused", "no_such_option=1 was accepted")


def _check_sweep(bench: _Bench) -> None:
    """Train groups, some added while others train, some that fail."""
    plain = _trials_named(*[f"plain_{number}" for number in range(7)])
    failing = [[trial] for trial in _trials_named(*[f"{name}_0" for name in _FAULTS])]
    groups: list[Sequence[Trial]] = [plain[:2], plain[2:4]]
    more = [plain[4:6], *failing, plain[6:]]
    results = dict[str, TrialResult]()

    def checked(outcomes: Iterator[GroupOutcome]) -> Iterator[GroupOutcome]:
        for outcome in outcomes:
            _check_outcome(outcome)
            results.update({result.trial: result for result in outcome.results})
            if more:
                groups.append(more.pop(0))
            yield outcome

    with bench.runner("sweep") as runner:
        slots = runner.executor.slots
        is_count = isinstance(slots, int) and slots >= 1
        promise(is_count, "slots is a whole number >= 1", f"it is {slots!r}")
        (tuned,) = bench.collect(runner.run([()]))
        promise.same(tuned.tuned, SIZE, "a folder without trials is tuned")
        bench.collect(checked(runner.run(groups)))
    for trial in plain:
        direct = checked_result(trial, bench.corpus, TRAINING)
        trained = results[trial.name]
        same = direct == replace(trained, seconds=0.0)
        promise(same, "results equal those of direct training", f"{trial.name}: {trained}")


def _check_outcome(outcome: GroupOutcome) -> None:
    names = [trial.name for trial in outcome.trials]
    why = f"{outcome.fault!r}: {outcome.reason}"
    kind = names[0].partition("_")[0]
    if kind not in _FAULTS:
        claim = "trials that do not fail have results"
        promise(outcome.reason is None, claim, f"{names}: {why}")
        return
    promise(outcome.reason, f"a failed trial ({kind}) has a reason", "it has none")
    if kind == "raises":
        promise(REASON in str(outcome.reason), "the reason contains the proxy's error", why)
    fault = _FAULTS[kind]
    ran_out = kind == "killed" and outcome.fault == "memory"  # which a killed worker may have done
    claim = f"a failed trial ({kind}) has the fault {fault!r}"
    promise(outcome.fault == fault or ran_out, claim, why)


def _check_corpus(bench: _Bench) -> None:
    """Check that workers refuse a corpus that differs from the owner's."""
    with suppress(MixoptError), bench.runner("another_corpus", "0" * 64) as runner:
        outcomes = bench.collect(runner.run([_trials_named("plain_0")]))
        refused = not any(outcome.results for outcome in outcomes)
        promise(refused, "a corpus with another hash is refused", "trials were trained on it")


def _check_leaving(bench: _Bench) -> None:
    """Check that leaving the context stops all training."""
    slow, quick = _trials_named("slow_0", "plain_1")
    with bench.runner("leaving") as runner:
        bench.collect(islice(runner.run([[quick], [slow]]), 1))
    until = time.monotonic() + ENDING
    running = bench.processes()
    while running and time.monotonic() < until:
        time.sleep(0.1)
        running = bench.processes()
    broken = f"processes {running} still run"
    promise(not running, "leaving the context ends all its processes", broken)
