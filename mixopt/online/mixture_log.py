"""The mixture log: a line of JSON for each change of the mixture, from the first batch on.

Each line has the batch from which it holds, the first optimiser step on it, the weights by name
and why. There are no times in it, and what comes after a state that is loaded is cut off, so that
the log of a run that was killed and resumed is that of an undisturbed one, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from mixopt.errors import RunError
from mixopt.mixture import total_variation
from mixopt.system import checked_as, parse_json, read_text


class MixtureLog:
    """Lines of one file; nothing is written without a path, as on ranks other than 0."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.size = 0

    def cut(self, size: int) -> None:
        """Go on after so many bytes; what comes after them is of a run that was given up."""
        self.size = size
        if self._path is None:
            return
        with self._opened(self._path) as stream:
            length = stream.tell()
            stream.truncate(min(size, length))
        if length < size:
            raise RunError(
                f"{self._path}: has {length} bytes, but had {size} when the state was saved; "
                "restore the file of that run, or drive without log="
            )

    def write(
        self, batch: int, step: int, weights: Mapping[str, float], why: str, *, shadow: bool
    ) -> None:
        """Write a line, and have it out of this process."""
        line = {"batch": batch, "step": step, "weights": dict(weights), "why": why}
        content = json.dumps(line | ({"shadow": True} if shadow else {}), ensure_ascii=False) + "\n"
        self.size += len(content.encode())
        if self._path is not None:
            with self._opened(self._path) as stream:
                stream.write(content.encode())

    @contextmanager
    def _opened(self, path: Path) -> Iterator[IO[bytes]]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                yield stream
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from error


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
    """Return the changes of weights that a log has, in their order; none where there is no log."""
    logged: list[tuple[int, str, dict[str, float]]] = []
    text = read_text(path, error=RunError) if path.exists() else ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        where = f"{path}: line {number}"
        content = checked_as(dict[str, Any], parse_json(line, where), where)
        if not content.get("shadow"):
            step = checked_as(int, content.get("step"), f"{where}: step")
            weights = checked_as(dict[str, float], content.get("weights"), f"{where}: weights")
            logged.append((step, str(content.get("why", "")), weights))
    return [
        LoggedChange(step, why, before, after)
        for (_, _, before), (step, why, after) in pairwise(logged)
        if before != after
    ]
