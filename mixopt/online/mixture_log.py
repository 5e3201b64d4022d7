"""The mixture log: a line of JSON for each change of the mixture, from the first batch on.

Each line has the first batch and the first optimiser step of a mixture, its weights by name, and
the reason. It has no times, and lines after a loaded state are cut, so that a killed and resumed
run has the same log as an undisturbed one, byte for byte.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.system import checked_as, parse_json, read_text, writing

MIXTURE_LOG = "mixture_log.jsonl"  # in a pretraining's directory


class LineLog:
    """JSON lines in a file; without a path, as on ranks other than 0, nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.size = 0

    def cut(self, size: int) -> int:
        """Continue after this number of bytes; return the former size.

        Later lines belong to an abandoned continuation.
        """
        self.size = size
        length = size
        if self._path is not None:
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as stream:
                    length = stream.tell()
                    stream.truncate(min(size, length))
        return length

    def add(self, line: Mapping[str, Any]) -> None:
        """Write and flush a line; NaN is not allowed."""
        content = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self.size += len(content)
        if self._path is not None:
            with writing(self._path), self._path.open("ab") as stream:
                stream.write(content)


class MixtureLog(LineLog):
    """The log of a run, which resumes only if all of it is present."""

    def cut(self, size: int) -> int:
        """Continue after this number of bytes."""
        length = super().cut(size)
        if length < size:
            raise RunError(
                f"{self._path}: has {length} bytes, but had {size} when the state was saved; "
                "restore the file of that run, or drive without log="
            )
        return length

    def write(
        self, batch: int, step: int, weights: Mapping[str, float], why: str, *, shadow: bool
    ) -> None:
        """Write a line."""
        line = {"batch": batch, "step": step, "weights": dict(weights), "why": why}
        if shadow:
            line["shadow"] = True
        self.add(line)


@dataclass(frozen=True)
class LoggedChange:
    """A change of weights.

    Attributes:
        step: The first optimiser step on the new weights, counted from 1.
        why: The reason.
        before: Share of each domain before the change.
        after: Share of each domain after the change.
    """

    step: int
    why: str
    before: Mapping[str, float]
    after: Mapping[str, float]

    @property
    def distance(self) -> float:
        """Total variation between the weights, 0 to 1."""
        names = set(self.before) | set(self.after)
        moves = (abs(self.before.get(name, 0) - self.after.get(name, 0)) for name in names)
        return math.fsum(moves) / 2


def read_changes(path: Path) -> list[LoggedChange]:
    """Return the changes of weights in a log, in their order; empty without a log."""
    if not path.exists():
        return []
    changes: list[LoggedChange] = []
    before: dict[str, float] | None = None
    text = read_text(path, error=RunError)
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        where = f"{path}: line {number}"
        content = checked_as(dict[str, Any], parse_json(line, where), where)
        if content.get("shadow"):
            continue
        step = checked_as(int, content.get("step"), f"{where}: step")
        after = checked_as(dict[str, float], content.get("weights"), f"{where}: weights")
        if before is not None and before != after:
            changes.append(LoggedChange(step, str(content.get("why", "")), before, after))
        before = after
    return changes
