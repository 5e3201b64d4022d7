"""The cost of a sweep so far and the rest, in total and by node.

It adds up the attempts that have ended (mixopt.sweeps.ledger) and the groups that train now
(mixopt.sweeps.progress_file). An hour of a GPU counts for each GPU that a worker has, an hour of a
CPU for each worker that has none; attempts that came to nothing count too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mixopt.sweeps.ledger import AttemptRecord
from mixopt.sweeps.progress_file import GroupState

HOUR = 3600.0


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
    """Add up a sweep.

    Args:
        attempts: Those that have ended.
        running: What trains now.
        left: Trials that have not ended; those that train now are among them.
    """
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
