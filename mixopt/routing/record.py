"""The record of a run's experts, on disk.

    experts/
      counts/part-<end>.parquet   a row for each domain, layer and expert, and one without an expert
                                  for dropped assignments: tokens in one window of steps, after
                                  `step_start` up to `step_end`

Windows are disjoint, so that concatenated parts cover the run. Files are written atomically. A run
that resumes from a checkpoint drops later parts.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from mixopt.errors import RoutingError
from mixopt.routing.assignments import Assignments, LayerAssignments
from mixopt.routing.summary import COUNTS_SCHEMA, counts_table, domain_table, layer_table
from mixopt.system import one_line, read_table, write_table

EXPERTS = "experts"  # the folder in a run directory
COUNTS = "counts"


@dataclass(frozen=True, eq=False)
class Window:
    """Counts of a window of steps.

    Attributes:
        start: Number of steps before it.
        end: Number of steps at its end.
        assignments: Counts of its steps only.
    """

    start: int
    end: int
    assignments: Assignments

    @cached_property
    def layers(self) -> pl.DataFrame:
        """The table by layer."""
        return layer_table(self.assignments)

    @cached_property
    def domains(self) -> pl.DataFrame:
        """The table by domain and layer."""
        return domain_table(self.assignments)


class ExpertRecord:
    """The experts of one run."""

    def __init__(self, path: Path) -> None:
        """Set the folder, which is created on the first write."""
        self.path = path

    def part(self, end: int) -> Path:
        """Return the file of the window that ends at a step."""
        return self.path / COUNTS / f"part-{end:08d}.parquet"

    @property
    def last_step(self) -> int:
        """The end of the last window; 0 if there is none."""
        return max((_step(file) for file in self._parts()), default=0)

    def write_window(self, start: int, end: int, assignments: Assignments) -> None:
        """Write the counts of a window."""
        window = {"step_start": pl.lit(start, pl.Int32), "step_end": pl.lit(end, pl.Int32)}
        table = counts_table(assignments)
        write_table(self.part(end), table.with_columns(**window).select(*window, *table.columns))

    def cut(self, step: int) -> None:
        """Resume after a step: drop later windows."""
        for file in self._parts():
            if _step(file) > step:
                file.unlink()

    def windows(self) -> list[Window]:
        """Return the windows in their order."""
        return [_read(file) for file in self._parts()]

    def _parts(self) -> list[Path]:
        return sorted((self.path / COUNTS).glob("part-*.parquet"))


def _read(file: Path) -> Window:
    table = read_table(file, error=RoutingError)
    try:
        start, end = table.select("step_start", "step_end").row(0)
        if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end:
            raise ValueError(f"a window from step {start} to {end}")
        counts = table.select(list(COUNTS_SCHEMA)).cast(pl.Schema(COUNTS_SCHEMA))
        return Window(start, end, _assignments(counts))
    except (pl.exceptions.PolarsError, ValueError, TypeError, ArithmeticError) as error:
        raise RoutingError(f"{file}: cannot be read: {one_line(error)}") from error


def _assignments(table: pl.DataFrame) -> Assignments:
    domains = tuple(table["domain"].unique(maintain_order=True))
    layers: list[LayerAssignments] = []
    for _, rows in table.group_by("layer", "router", maintain_order=True):
        first = rows.row(0, named=True)
        counts_HDE = rows.select("even", "odd").to_numpy().T.reshape(2, len(domains), -1)
        layers.append(
            LayerAssignments(
                layer=first["layer"],
                top_k=first["top_k"],
                counts_HDE=counts_HDE[..., :-1].copy(),
                dropped_HD=counts_HDE[..., -1].copy(),
                router=first["router"],
            )
        )
    assignments = Assignments(domains, tuple(layers))
    is_whole = all(layer.experts and layer.counts_HDE.min() >= 0 for layer in layers)
    if not is_whole or not counts_table(assignments).equals(table):
        raise ValueError("it does not have a count of each expert of each domain once")
    return assignments


def _step(file: Path) -> int:
    step = file.stem.removeprefix("part-")
    if not step.isdecimal():
        raise RoutingError(f"{file}: is not named after a step; remove it")
    return int(step)
