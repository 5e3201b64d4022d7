"""What the attempts of a sweep have cost, and what the rest may: `attempts.jsonl` and its sums.

    {"at": 1764151200.0, "trials": ["t0007"], "finished": 1, "outcome": "ended", "node": "n2",
     "kind": "cpu", "gpus": 0.0, "seconds": 12.3, "reason": null}

A line is written for each attempt that has ended. Nothing is resumed from it, so that a line that
cannot be read is passed over. An hour of a GPU counts for each GPU that a worker has, an hour of a
CPU for each worker that has none; attempts that came to nothing count too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mixopt.errors import MixoptError, RunError
from mixopt.sweeps.group_runner import GroupOutcome
from mixopt.system import check_names, checked_as, parse_json
from mixopt.trials import Doing, Trial

ATTEMPTS = "attempts.jsonl"
HOUR = 3600.0
MAX_LINE = 1 << 20  # bytes

Ended = Literal["ended", "failed", "died", "memory", "lost"]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Frozen(BaseModel):
    """Plain values of a file for onlookers."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GroupState(Frozen):
    """What one worker does: with which trials, how far, how fast and where; none while it tunes."""

    doing: Doing
    trials: list[str]
    done: Count
    total: Count
    tokens_per_second: Amount | None
    node: str = ""
    kind: str = "cpu"
    gpus: Amount = 0.0
    seconds: Amount = 0.0

    @field_validator("trials")
    @classmethod
    def _names(cls, trials: list[str]) -> list[str]:
        try:
            check_names(trials, "trial", RunError)
        except RunError as error:
            raise ValueError(str(error)) from error
        return trials


class AttemptRecord(BaseModel):
    """One attempt at a group.

    Attributes:
        at: When it ended, in seconds since 1970.
        trials: What was trained together.
        finished: How many of them have a result.
        outcome: `ended` with results; `failed` for a reason of the proxy's; or the fault.
        node: Where.
        kind: On which kind of device.
        gpus: How many of them.
        seconds: How long.
        reason: Why there is no result.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: Amount
    trials: list[str]
    finished: Annotated[int, Field(ge=0)]
    outcome: Ended
    node: str
    kind: str
    gpus: Amount
    seconds: Amount
    reason: str | None = None


def note_attempt(folder: Path, outcome: GroupOutcome, members: Sequence[Trial]) -> AttemptRecord:
    """Add a line, and return it; a disk that cannot be written to ends no sweep."""
    trained = [trial.name for trial in members][: outcome.trained]
    ended: Ended = outcome.fault or ("failed" if outcome.reason else "ended")
    record = AttemptRecord(
        at=time.time(),
        trials=trained,
        finished=len(outcome.results),
        outcome=ended,
        node=outcome.place.node,
        kind=outcome.place.kind,
        gpus=outcome.place.gpus,
        seconds=outcome.seconds,
        reason=outcome.reason,
    )
    with suppress(OSError), (folder / ATTEMPTS).open("a", encoding="utf-8") as stream:
        stream.write(record.model_dump_json() + "\n")
    return record


def read_attempts(folder: Path) -> list[AttemptRecord]:
    """Return the attempts so far, in the order they ended; none where there is no file."""
    found: list[AttemptRecord] = []
    with suppress(OSError), (folder / ATTEMPTS).open("rb") as stream:
        while line := stream.readline(MAX_LINE):
            with suppress(MixoptError):
                found.append(checked_as(AttemptRecord, parse_json(line, ATTEMPTS), ATTEMPTS))
    return found


@dataclass
class NodeTotals:
    """What one kind of device of a node does, and has done.

    Attributes:
        node: The host's name.
        kind: Of its devices.
        workers: Groups that train there now.
        running: Their trials.
        done: Trials that have ended there with a result.
        lost: Trials that were lost with the place where they trained.
        tokens_per_second: Of the groups that train now, together; None where none says.
        gpu_hours: Of its GPUs so far, groups that train now included.
        cpu_hours: Of workers without a GPU.
    """

    node: str
    kind: str
    workers: int = 0
    running: int = 0
    done: int = 0
    lost: int = 0
    tokens_per_second: float | None = None
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0

    def _add_hours(self, seconds: float, gpus: float) -> None:
        if gpus:
            self.gpu_hours += seconds * gpus / HOUR
        else:
            self.cpu_hours += seconds / HOUR

    def _add_ended(self, attempt: AttemptRecord) -> None:
        self.done += attempt.finished
        self.lost += len(attempt.trials) if attempt.outcome == "lost" else 0
        self._add_hours(attempt.seconds, attempt.gpus)

    def _add_running(self, group: GroupState) -> None:
        self.workers += 1
        self.running += len(group.trials)
        self._add_hours(group.seconds, group.gpus)
        if group.tokens_per_second is not None:
            self.tokens_per_second = (self.tokens_per_second or 0.0) + group.tokens_per_second


@dataclass(frozen=True)
class SweepTotals:
    """What a sweep has cost, and may still cost.

    Attributes:
        lost: Trials that were lost with the place where they trained.
        retried: Attempts at trials that were not the first.
        gpu_hours: So far; 0 where no GPU was used.
        cpu_hours: So far, of workers without a GPU.
        gpu_hours_to_go: At the cost of a trial so far; None before one has ended.
        cpu_hours_to_go: As of GPUs.
        nodes: By node and kind of device.
    """

    lost: int = 0
    retried: int = 0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours_to_go: float | None = None
    cpu_hours_to_go: float | None = None
    nodes: list[NodeTotals] = field(default_factory=list)

    @property
    def hours(self) -> dict[str, float]:
        """The hours that count: of GPUs; of CPUs where there is no GPU."""
        unit = "gpu" if self.gpu_hours or not self.cpu_hours else "cpu"
        found = {f"{unit}_hours": getattr(self, f"{unit}_hours")}
        left = getattr(self, f"{unit}_hours_to_go")
        return found if left is None else found | {f"{unit}_hours_to_go": left}

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def sweep_totals(
    attempts: Sequence[AttemptRecord], running: Iterable[GroupState], left: int
) -> SweepTotals:
    """Add up a sweep."""
    nodes: dict[tuple[str, str], NodeTotals] = {}
    now = NodeTotals("", "")
    for attempt in attempts:
        _of(nodes, attempt)._add_ended(attempt)
    for group in running:
        _of(nodes, group)._add_running(group)
        now._add_running(group)
    found = sorted(nodes.values(), key=lambda one: (one.node, one.kind))
    ended = _ended(attempts)
    gpu = sum(one.gpu_hours for one in found)
    cpu = sum(one.cpu_hours for one in found)
    return SweepTotals(
        lost=sum(one.lost for one in found),
        retried=_retried(attempts),
        gpu_hours=gpu,
        cpu_hours=cpu,
        gpu_hours_to_go=_to_go(gpu, now.gpu_hours, ended, left),
        cpu_hours_to_go=_to_go(cpu, now.cpu_hours, ended, left),
        nodes=found,
    )


def _of(nodes: dict[tuple[str, str], NodeTotals], entry: AttemptRecord | GroupState) -> NodeTotals:
    return nodes.setdefault((entry.node, entry.kind), NodeTotals(entry.node, entry.kind))


def _ended(attempts: Iterable[AttemptRecord]) -> int:
    """Count the trials that need no further attempt, as far as attempts tell."""
    return sum(
        len(attempt.trials) if attempt.outcome == "failed" else attempt.finished
        for attempt in attempts
    )


def _retried(attempts: Iterable[AttemptRecord]) -> int:
    times = Counter(trial for attempt in attempts for trial in attempt.trials)
    return sum(count - 1 for count in times.values())


def _to_go(so_far: float, now: float, ended: int, left: int) -> float | None:
    """Return hours: a trial costs what one that has ended did, and some of it is spent."""
    if not ended:
        return None
    return max(0.0, (so_far - now) / ended * left - now)
