"""The mixture log: a line of JSON for each change of the mixture, from the first batch on.

Each line has the batch from which it holds, the first optimiser step on it, the weights by name
and why. There are no times in it, and what comes after a state that is loaded is cut off, so that
the log of a run that was killed and resumed is that of an undisturbed one, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mixopt.errors import RunError
from mixopt.online.sums import is_first


class MixtureLog:
    """Lines of one file, written by rank 0; nothing is written without a path."""

    def __init__(self, path: Path | None) -> None:
        """Leave the file as it is, until there is something to write.

        Args:
            path: The file; None for no log.
        """
        self._path = path
        self.size = 0

    def cut(self, size: int) -> None:
        """Go on after so many bytes; what comes after them is of a run that was given up.

        Raises:
            RunError: The file is shorter than that, or cannot be written.
        """
        if self._path is not None and is_first():
            self._cut(self._path, size)
        self.size = size

    def _cut(self, path: Path, size: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                found = stream.tell()
                stream.truncate(min(size, found))
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from error
        if found < size:
            raise RunError(
                f"{path}: has {found} bytes, but had {size} when the state was saved; restore the "
                "file of that run, or drive without log="
            )

    def write(
        self, batch: int, step: int, weights: Mapping[str, float], why: str, *, shadow: bool
    ) -> None:
        """Write a line, and have it out of this process.

        Args:
            batch: The global batch from which the weights hold.
            step: The optimiser step of that batch, counted from 1.
            weights: Share of each domain.
            why: The plan's tag, or what happened.
            shadow: Whether this only would have been done.

        Raises:
            RunError: The file cannot be written.
        """
        line = {"batch": batch, "step": step, "weights": dict(weights), "why": why}
        if shadow:
            line["shadow"] = True
        content = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        self.size += len(content)
        if self._path is None or not is_first():
            return
        try:
            with self._path.open("ab") as stream:
                stream.write(content)
        except OSError as error:
            raise RunError(f"{self._path}: cannot be written: {error.strerror}") from error
