"""The promises of an executor (mixopt.sweeps.contract), checked by having it train groups.

The proxy is ours, trains at once and does to its worker what a trial's name says, so that what an
executor makes of a death is seen; the corpus is a small one of real text.
"""

from __future__ import annotations

import inspect
import json
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixopt.corpus import Corpus, corpus_hash
from mixopt.errors import MixoptError
from mixopt.mixture import Mixture
from mixopt.sweeps import Executor, GroupOutcome, GroupRunner, Job, Site
from mixopt.system import host_name, is_running
from mixopt.testing._executor_proxy import PROXY, REASON, checked_result
from mixopt.testing._proxies import tiny_corpus
from mixopt.trials import Training, Trial

SIZE = 2  # trials that train together
TOKENS = 1000
ENDING = 20.0  # seconds after which what an executor started has ended
_FAULTS = {"raises": None, "memory": "memory", "killed": "died", "exits": "died"}
_ODD = "no_such_option"


def check_executor(
    factory: Callable[..., Executor],
    *,
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    seconds: float = 120.0,
) -> None:
    """Check that an executor keeps its promises, by training some twenty trials of no length."""
    with ExitStack() as stack:
        if folder is None:
            made = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
        bench = _Bench(factory, options or {}, folder.resolve(), seconds)
        _check_options(bench)
        _check_a_sweep(bench)
        _check_nothing_to_do(bench)
        _check_another_corpus(bench)
        _check_leaving(bench)


def _promise(kept: bool, what: str, detail: str) -> None:
    if not kept:
        raise AssertionError(f"an executor promises: {what}. Broken: {detail}")


@dataclass
class _Heard:
    """What came of some groups, to which more may be added."""

    groups: dict[int, Sequence[Trial]]
    outcomes: list[GroupOutcome] = field(default_factory=list)


@dataclass(frozen=True)
class _Bench:
    """Where an executor is checked."""

    factory: Callable[..., Executor]
    options: Mapping[str, Any]
    folder: Path
    seconds: float

    @property
    def log(self) -> Path:
        """Where each process that trains leaves its name."""
        return self.folder / "trained_by"

    def corpus(self) -> Corpus:
        """Return the corpus; written the first time."""
        path = self.folder / "corpus"
        self.log.mkdir(parents=True, exist_ok=True)
        return Corpus.open(path) if path.exists() else tiny_corpus(path)

    def job(self, **changes: Any) -> Job:
        """Return the job, with other values of some fields."""
        corpus = self.corpus().path
        training = Training(tokens=TOKENS, eval_tokens=TOKENS, device="cpu")
        options = {"log": str(self.log), "size": SIZE}
        return replace(Job(PROXY, options, corpus, training, corpus_hash(corpus)), **changes)

    def make(self, name: str, job: Job | None = None, **more: Any) -> GroupRunner:
        """Make what trains on an executor, for a sweep of its own; `more` are options besides."""
        folder = self.folder / name / "trials"  # as in a run directory
        folder.mkdir(parents=True)
        site = Site(folder, device="cpu", workers=2)
        executor = self.factory(site, **self.options, **more)
        return GroupRunner(job or self.job(), site, executor, self.seconds)

    def run(
        self,
        runner: GroupRunner,
        groups: dict[int, Sequence[Trial]],
        after: Callable[[_Heard, GroupOutcome], None] = lambda heard, outcome: None,
        *,
        most: int | None = None,
    ) -> _Heard:
        """Have groups trained; wait for each outcome as long as is allowed."""
        heard = _Heard(groups)
        asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        given: queue.SimpleQueue[GroupOutcome | BaseException | None] = queue.SimpleQueue()

        def feed() -> None:
            try:
                outcomes = runner.run(groups, lambda *_: None)
                while asked.get():
                    given.put(next(outcomes, None))
            except BaseException as error:  # told in the thread that waits
                given.put(error)

        threading.Thread(target=feed, daemon=True).start()
        while most is None or len(heard.outcomes) < most:
            asked.put(True)
            try:
                outcome = given.get(timeout=self.seconds)
            except queue.Empty:
                missing = sorted(set(groups) - {one.group for one in heard.outcomes})
                silent = f"none for {self.seconds:g} s; groups {missing} have none"
                _promise(False, "each folder ends, with a result or without", silent)
            if outcome is None:
                break
            if isinstance(outcome, BaseException):
                raise outcome
            heard.outcomes.append(outcome)
            after(heard, outcome)
        asked.put(False)
        return heard

    def still_running(self) -> list[int]:
        """Return the processes of this host that have trained and are there; wait a while."""
        until = time.monotonic() + ENDING
        while left := self._processes():
            if time.monotonic() > until:
                return left
            time.sleep(0.1)
        return []

    def _processes(self) -> list[int]:
        found = []
        for path in self.log.glob("*.json"):
            with suppress(ValueError):
                name = json.loads(path.read_text(encoding="utf-8"))
                here = name["host"] == host_name()
                if here and is_running(name["pid"], name["started"]):
                    found.append(name["pid"])
        return found


def _trials_named(*names: str) -> list[Trial]:
    """Return trials of these names, each of another mixture and seed."""
    found = []
    for place, name in enumerate(names):
        share = (1 + place % 9) / 10
        found.append(Trial(name, Mixture({"code": share, "manual": 1 - share}), seed=place))
    return found


def _check_options(bench: _Bench) -> None:
    parameters = inspect.signature(bench.factory).parameters.values()
    many = [one for one in parameters if one.kind is inspect.Parameter.VAR_KEYWORD]
    if any("Unpack" in str(one.annotation) for one in many):
        return  # named fields, which make_executor checks
    try:
        bench.make("options", None, **{_ODD: 1})
    except (TypeError, MixoptError):
        return
    _promise(False, "an option that it does not have is refused", f"{_ODD}=1 was taken")


def _check_a_sweep(bench: _Bench) -> None:
    """Train groups, some of them added while others train; then such that end in other ways."""
    plain = _trials_named("steady_0", *(f"plain_{number}" for number in range(1, 7)))
    groups: dict[int, Sequence[Trial]] = {0: plain[:2], 1: plain[2:4]}
    more = [*([trial] for trial in _trials_named(*(f"{name}_0" for name in _FAULTS))), plain[6:]]
    more.insert(0, plain[4:6])

    def after(heard: _Heard, outcome: GroupOutcome) -> None:
        _check_outcome(heard, outcome)
        if more:
            heard.groups[max(heard.groups) + 1] = more.pop(0)

    runner = bench.make("sweep")
    with runner as entered:
        slots = entered.slots
        whole = isinstance(slots, int) and slots >= 1
        _promise(whole, "slots is a whole number >= 1", f"it is {slots!r}")
        size = entered.group_size()
        _promise(size == SIZE, "a folder without trials is tuned", f"{size}, not {SIZE}")
        heard = bench.run(entered, groups, after)
    corpus, training = bench.corpus(), bench.job().training
    found = {one.trial: one for outcome in heard.outcomes for one in outcome.results}
    for trial in plain:
        direct, got = checked_result(trial, corpus, training), found[trial.name]
        same = replace(direct, seconds=0.0) == replace(got, seconds=0.0)
        _promise(same, "results are those of training directly", f"{trial.name}: {got}")


def _check_outcome(heard: _Heard, outcome: GroupOutcome) -> None:
    names = [trial.name for trial in heard.groups[outcome.group]]
    kind = names[0].partition("_")[0]
    why = f"{outcome.fault!r}: {outcome.reason}"
    if kind not in _FAULTS:
        plain = outcome.reason is None
        _promise(plain, "trials that nothing happens to have results", f"{names}: {why}")
        return
    reason = outcome.reason or ""
    _promise(bool(reason), f"a trial that ends so ({kind}) has a reason", "there is none")
    if kind == "raises":
        _promise(REASON in reason, "the reason is what the proxy raised", why)
    wanted = _FAULTS[kind]
    # One that is killed may have been for memory.
    right = outcome.fault == wanted or (kind == "killed" and outcome.fault == "memory")
    _promise(right, f"a trial that ends so ({kind}) has the fault {wanted!r}", why)


def _check_nothing_to_do(bench: _Bench) -> None:
    with bench.make("nothing") as runner:
        heard = bench.run(runner, {})
    found = f"{len(heard.outcomes)} outcomes"
    _promise(not heard.outcomes, "without groups it ends at once", found)


def _check_another_corpus(bench: _Bench) -> None:
    """Check that workers refuse a corpus that is not the one that the owner has."""
    try:
        with bench.make("another_corpus", bench.job(corpus_hash="0" * 64)) as runner:
            heard = bench.run(runner, {0: _trials_named("plain_0")})
    except MixoptError:
        return
    refused = not any(outcome.results for outcome in heard.outcomes)
    _promise(refused, "a corpus of another hash is refused", "trials were trained on it")


def _check_leaving(bench: _Bench) -> None:
    """Check that leaving ends what trains."""
    slow, quick = _trials_named("slow_0", "plain_1")
    with bench.make("leaving") as runner:
        bench.run(runner, {0: [quick], 1: [slow]}, most=1)
    left = bench.still_running()
    _promise(not left, "leaving ends what it started", f"processes {left} are still there")
