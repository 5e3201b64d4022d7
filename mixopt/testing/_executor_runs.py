"""Let an executor train groups of our own proxy, and record its reports."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixopt.corpus import Corpus, corpus_hash
from mixopt.mixture import Mixture
from mixopt.sweeps import Executor, GroupOutcome, Job, Place, Site
from mixopt.system import host_name, is_running
from mixopt.testing._executor_proxy import PROXY
from mixopt.testing._tiny_corpus import tiny_corpus
from mixopt.trials import Progress, Training, Trial

SIZE = 2  # trials that train together
TOKENS = 1000
ENDING = 20.0  # seconds after which what an executor started has ended


def promise(kept: bool, what: str, detail: str) -> None:
    """Raise where a promise is broken."""
    if not kept:
        raise AssertionError(f"an executor promises: {what}. Broken: {detail}")


@dataclass
class Heard:
    """What an executor says of some groups.

    Attributes:
        groups: The groups, by number; those that were added too.
        outcomes: In the order in which they came.
        reports: Progress and place, by group.
    """

    groups: dict[int, Sequence[Trial]]
    outcomes: list[GroupOutcome] = field(default_factory=list)
    reports: dict[int, list[tuple[Progress, Place]]] = field(default_factory=dict)

    def report(self, group: int, progress: Progress, place: Place) -> None:
        """Keep a report; called from any thread."""
        self.reports.setdefault(group, []).append((progress, place))


@dataclass(frozen=True)
class Bench:
    """Where an executor is checked.

    Attributes:
        factory: Makes the executor.
        options: What it is made with.
        folder: All places see it.
        seconds: Longest wait for the next outcome.
    """

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

    def make(self, name: str, job: Job | None = None, **more: Any) -> Executor:
        """Make an executor for a sweep of its own; `more` are options besides."""
        folder = self.folder / name / "trials"  # as in a run directory
        folder.mkdir(parents=True)
        site = Site(folder, workers=2, patience=self.seconds, trust=True)
        return self.factory(job or self.job(), site, **self.options, **more)

    def run(
        self,
        executor: Executor,
        groups: dict[int, Sequence[Trial]],
        after: Callable[[Heard, GroupOutcome], None] = lambda heard, outcome: None,
        *,
        most: int | None = None,
    ) -> Heard:
        """Let it train groups; wait for each outcome as long as is allowed.

        Args:
            executor: It has begun.
            groups: By number.
            after: Called with each outcome before the next one is asked for; may add groups.
            most: Outcomes after which nothing more is waited for; all when None.

        Raises:
            AssertionError: An outcome did not come in time.
        """
        heard = Heard(groups)
        asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        given: queue.SimpleQueue[GroupOutcome | BaseException | None] = queue.SimpleQueue()
        feed = (executor, heard, asked, given)
        threading.Thread(target=_feed, args=feed, daemon=True).start()
        while most is None or len(heard.outcomes) < most:
            asked.put(True)
            try:
                outcome = given.get(timeout=self.seconds)
            except queue.Empty:
                missing = sorted(set(groups) - {one.group for one in heard.outcomes})
                silent = f"none for {self.seconds:g} s; groups {missing} have none"
                promise(False, "each group is answered", silent)
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


def trials_named(*names: str) -> list[Trial]:
    """Return trials of these names, each of another mixture and seed."""
    found = []
    for place, name in enumerate(names):
        share = (1 + place % 9) / 10
        found.append(Trial(name, Mixture({"code": share, "manual": 1 - share}), seed=place))
    return found


def _feed(
    executor: Executor,
    heard: Heard,
    asked: queue.SimpleQueue[bool],
    given: queue.SimpleQueue[GroupOutcome | BaseException | None],
) -> None:
    """Give an outcome each time that one is asked for: groups are added between two."""
    try:
        outcomes = executor.run(heard.groups, heard.report)
        while asked.get():
            given.put(next(outcomes, None))
    except BaseException as error:  # told in the thread that waits
        given.put(error)
