"""Read the mixture log of a run; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mixopt.errors import RunError
from mixopt.mixture import total_variation
from mixopt.system import checked_as, parse_json, read_text

MIXTURE_LOG = "mixture_log.jsonl"  # in the directory of a pretraining


@dataclass(frozen=True)
class LoggedChange:
    """Weights that gave way to others.

    Attributes:
        step: The first optimiser step on the new weights, counted from 1.
        why: What changed them.
        before: Share of each domain until then.
        after: Share of each domain from then on.
    """

    step: int
    why: str
    before: Mapping[str, float]
    after: Mapping[str, float]

    @property
    def distance(self) -> float:
        """Total variation between the weights, 0 to 1."""
        names = [*dict.fromkeys([*self.before, *self.after])]
        left, right = ([one.get(name, 0.0) for name in names] for one in (self.before, self.after))
        return float(total_variation(left, right))


def read_changes(path: Path) -> list[LoggedChange]:
    """Return the changes of weights that a log has, in their order; none where there is no log.

    What only would have been done is left out, as is a line that a killed process left half of.

    Raises:
        RunError: The file cannot be read, or a line of it is not one of the log's.
    """
    if not path.exists():
        return []
    found, before = [], None
    for number, line in enumerate(read_text(path, error=RunError).splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        where = f"{path}: line {number}"
        content = checked_as(dict[str, object], parse_json(line, where), where)
        if content.get("shadow"):
            continue
        weights = checked_as(dict[str, float], content.get("weights"), f"{where}: weights")
        step = checked_as(int, content.get("step"), f"{where}: step")
        if before is not None and weights != before:
            found.append(LoggedChange(step, str(content.get("why", "")), before, weights))
        before = weights
    return found
