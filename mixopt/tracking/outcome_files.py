"""Files of outcomes: `tracking_sweep.jsonl` and `tracking_validate.jsonl` in the run directory.

Lines of metrics (mixopt.tracking.lines), which the sender follows. An outcome is made again when an
earlier step is, and of two points with one step MLflow shows the later one: so nothing is written
over, and only what is another value than before is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mixopt.tracking.lines import MetricLines, points_of

Line = tuple[int, dict[str, float]]  # the step of the charts, and metrics


def outcome_file(directory: Path, step: str) -> Path:
    """Return the file of the parent run of a step."""
    return directory / f"tracking_{step}.jsonl"


def add_outcome(file: Path, lines: Iterable[Line]) -> None:
    """Add what is new or has changed.

    Raises:
        OSError: The file cannot be read or written.
    """
    known = _known(file)
    out = MetricLines(file)
    try:
        for step, metrics in _joined(lines):
            fresh = {
                key: value for key, value in metrics.items() if known.get((key, step)) != value
            }
            if fresh:
                out.write(fresh, step)
    finally:
        out.close()


def _joined(lines: Iterable[Line]) -> Iterable[Line]:
    """Return one line for each step; of two values of a metric the later one counts."""
    found: dict[int, dict[str, float]] = {}
    for step, metrics in lines:
        found.setdefault(step, {}).update(metrics)
    return sorted(found.items())


def _known(file: Path) -> dict[tuple[str, int], float]:
    if not file.is_file():
        return {}
    with file.open("rb") as stream:
        return {(p.key, p.step): p.value for line in stream for p in points_of(line)}
