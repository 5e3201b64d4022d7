"""The record of a run's experts, on disk.

    experts/
      counts/part-<end>.parquet   a row for each domain, layer and expert, and
      layers/part-<end>.parquet   one for each domain and layer: sums over one window of steps,
                                  from after `step_start` to `step_end`
      probe/<step>.npz            what the routers chose for fixed batches (mixopt.routing)
      scalars.jsonl               a line for each step that has numbers (mixopt.routing.scalars)
      images/<figure>/<step>.png  pictures of what was there after so many steps

Windows are disjoint, so parts one below the other add up to the run. Files are there whole or not
at all. A run that resumes from a checkpoint drops what was written after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from mixopt.errors import RoutingError, RunError
from mixopt.routing.assignments import Assignments
from mixopt.routing.frames import from_frames, to_frames
from mixopt.routing.probe_file import load_probe, save_probe
from mixopt.routing.probe_result import ProbeResult
from mixopt.routing.tables import domain_table, layer_table
from mixopt.system import parse_json, read_table, write_table, write_text

EXPERTS = "experts"  # the folder in a run directory
COUNTS, LAYERS, PROBE, SCALARS = "counts", "layers", "probe", "scalars.jsonl"
IMAGES = "images"


@dataclass(frozen=True, eq=False)
class CountedWindow:
    """What was counted in some steps.

    Attributes:
        start: Steps taken before it.
        end: Steps taken after it.
        assignments: Of these steps alone.
    """

    start: int
    end: int
    assignments: Assignments

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Experts, and experts of a token, by router."""
        return self.assignments.sizes

    @property
    def highest_load(self) -> float:
        """As `Assignments.highest_load`."""
        return self.assignments.highest_load

    @cached_property
    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What it says of each layer, and of each domain in each layer."""
        return layer_table(self.assignments), domain_table(self.assignments)


class RecordedWindow:
    """A window that stays on disk: it is read when its assignments are asked for, and let go.

    A record has as many windows as one likes, and one of a large model has many megabytes.

    Attributes:
        start: Steps taken before it.
        end: Steps taken after it.
        domains: Their names.
        sizes: Experts, and experts of a token, by router.
        highest_load: As `Assignments.highest_load`.
    """

    def __init__(self, read: Callable[[], CountedWindow], *, tables: bool = False) -> None:
        """Read it for the first time.

        Args:
            read: Reads it.
            tables: Whether its tables will be asked for, so that they are made at once.

        Raises:
            RoutingError: It cannot be read.
        """
        window = read()
        self.start, self.end = window.start, window.end
        self.domains, self.sizes = window.assignments.domains, window.sizes
        self.highest_load = window.highest_load
        self._read = read
        if tables:
            self.tables = window.tables

    @property
    def assignments(self) -> Assignments:
        """What was counted, read again.

        Raises:
            RoutingError: It cannot be read any more.
        """
        return self._read().assignments

    @cached_property
    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """As `CountedWindow.tables`; these are kept."""
        return self._read().tables


AnyWindow = CountedWindow | RecordedWindow


class ExpertRecord:
    """The experts of one run."""

    def __init__(self, path: Path) -> None:
        """Name the folder; it is made when something is written."""
        self.path = path

    @property
    def beside(self) -> list[Path]:
        """The files and folders there are, to be synced before a checkpoint counts."""
        names = (COUNTS, LAYERS, PROBE, SCALARS)
        return [self.path / name for name in names if (self.path / name).exists()]

    @property
    def is_there(self) -> bool:
        """Whether anything was recorded."""
        return bool(self._parts() or self._probes())

    def write_window(self, window: CountedWindow) -> None:
        """Write the two parts of a window.

        Raises:
            RunError: The folder cannot be written.
        """
        counts, layers = to_frames(window.assignments)
        steps = [
            pl.lit(window.start, pl.Int32).alias("step_start"),
            pl.lit(window.end, pl.Int32).alias("step_end"),
        ]
        total = (pl.col("even") + pl.col("odd")).alias("count")
        self._write(LAYERS, window.end, layers.select(*steps, pl.all()))
        self._write(COUNTS, window.end, counts.select(*steps, pl.all(), total))

    def write_probe(self, step: int, probe: ProbeResult) -> None:
        """Write what was seen after so many steps.

        Raises:
            RunError: The folder cannot be written.
        """
        save_probe(probe, self.path / PROBE / f"{step:08d}.npz")

    def image(self, figure: str, step: int) -> Path:
        """Return where a picture of what was there after so many steps is."""
        return self.path / IMAGES / figure / f"{step:08d}.png"

    def write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line; a step has one.

        Raises:
            RunError: The file cannot be written.
        """
        content = {"step": step, **values, "time": round(time.time(), 3)}
        line = json.dumps(content, allow_nan=False) + "\n"
        path = self.path / SCALARS
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from error

    def cut(self, step: int) -> None:
        """Go on after so many steps: drop all that is of later ones."""
        folders = [self.path / name for name in (COUNTS, LAYERS, PROBE)]
        for folder in (*folders, *(self.path / IMAGES).glob("*")):
            for file in folder.glob("*"):
                if not file.name.startswith(".") and _step(file) > step:
                    file.unlink()
        lines = self._lines()
        kept = [line for line in lines if _is_until(line, step)]
        if len(kept) < len(lines):
            write_text(self.path / SCALARS, "".join(kept))

    def windows(self) -> list[CountedWindow]:
        """Return the windows in their order.

        Raises:
            RoutingError: A part cannot be read.
        """
        return [self._window(file) for file in self._parts()]

    def recorded(self, *, tables: bool = False) -> list[RecordedWindow]:
        """Return the windows in their order, each of which is read when it is looked into.

        Args:
            tables: Whether their tables will be asked for.

        Raises:
            RoutingError: A part cannot be read.
        """
        reads = (partial(self._window, file) for file in self._parts())
        return [RecordedWindow(read, tables=tables) for read in reads]

    def probes(self) -> list[tuple[int, ProbeResult]]:
        """Return the probes and after how many steps they were, in their order.

        Raises:
            RoutingError: One cannot be read.
        """
        return [(_step(file), load_probe(file)) for file in self._probes()]

    def last_probe(self, until: int | None = None) -> tuple[int, ProbeResult] | None:
        """Return the latest probe and its step; errors as `probes`.

        Args:
            until: The last step that counts; None for all.
        """
        found = [file for file in self._probes() if until is None or _step(file) <= until]
        return (_step(found[-1]), load_probe(found[-1])) if found else None

    def scalars(self) -> list[dict[str, Any]]:
        """Return the lines of numbers."""
        return [_numbers(self.path / SCALARS, line) for line in self._lines() if _is_whole(line)]

    def _write(self, folder: str, end: int, table: pl.DataFrame) -> None:
        write_table(self.path / folder / f"part-{end:08d}.parquet", table)

    def _window(self, file: Path) -> CountedWindow:
        counts, layers = (
            read_table(self.path / folder / file.name, error=RoutingError)
            for folder in (COUNTS, LAYERS)
        )
        try:
            start, end = counts.select("step_start", "step_end").row(0)
            if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end:
                raise ValueError(f"a window from step {start} to {end}")
            return CountedWindow(start, end, from_frames(counts, layers))
        except (pl.exceptions.PolarsError, ValueError, TypeError, ArithmeticError) as error:
            raise RoutingError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error

    def _parts(self) -> list[Path]:
        return sorted((self.path / COUNTS).glob("part-*.parquet"))

    def _probes(self) -> list[Path]:
        return sorted((self.path / PROBE).glob("[0-9]*.npz"))

    def _lines(self) -> list[str]:
        path = self.path / SCALARS
        if not path.exists():
            return []
        try:
            return path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, ValueError) as error:
            raise RoutingError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def _step(file: Path) -> int:
    step = file.stem.removeprefix("part-")
    if not step.isdecimal():
        raise RoutingError(f"{file}: is not named after a step; remove it")
    return int(step)


def _is_until(line: str, step: int) -> bool:
    """Tell whether a line is whole, as a killed process may leave half of one, and not later."""
    return _is_whole(line) and _numbers(Path(SCALARS), line)["step"] <= step


def _is_whole(line: str) -> bool:
    return line.endswith("\n")


def _numbers(path: Path, line: str) -> dict[str, Any]:
    content = parse_json(line, str(path), error=RoutingError)
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        raise RoutingError(f"{path}: a line without a step: {line[:80].strip()!r}")
    return content
