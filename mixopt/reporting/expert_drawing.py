"""Draw the experts of a pretraining while it trains: `python -m mixopt.reporting.expert_drawing`.

Drawing takes seconds, so it is done by a process of its own, which reads what the run has written.
Training never waits for it: of the windows that end while one is drawn, the last is drawn next.
What goes wrong with it is a warning. Its arguments are the run directory and the step.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from mixopt.errors import MixoptError
from mixopt.reporting.figure_style import figure_png
from mixopt.reporting.run_experts import DESCRIPTIONS, FIGURES, PretrainingExperts, write_figures
from mixopt.routing import EXPERTS, ExpertRecord
from mixopt.system import Say, silent, write_bytes

# Figures that are kept of each step that is drawn; of all others, as of these, the last is kept.
BY_STEP = ("experts_load", "experts_domains")
NICENESS = 10  # how much drawing gives way to training on the same cores
PATIENCE = 60.0  # seconds that the end of a run waits for a step that is being drawn


class ExpertDrawing:
    """Draws a run's experts after steps of it, in a process of its own."""

    def __init__(self, path: Path, warn: Say = silent) -> None:
        """Name the run directory."""
        self._path, self._warn = path, warn
        self._process: subprocess.Popen[bytes] | None = None
        self._warned = False

    def draw(self, step: int) -> None:
        """Draw what is there after so many steps, at once or after what is being drawn."""
        if self._process is not None and self._process.poll() is None:
            return
        self._note_end()
        # -P: what lies in the working directory, which may be the run's, is not imported.
        module = ["-P", "-m", "mixopt.reporting.expert_drawing"]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
        try:
            # A session of its own: Ctrl-C ends the run, and a figure is still whole.
            self._process = subprocess.Popen(
                [sys.executable, *module, str(self._path.resolve()), str(step)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **threads},
                start_new_session=True,
            )
        except OSError as error:
            self._complain(f"cannot be started: {error.strerror}")

    def close(self, *, waits: bool = True) -> None:
        """End: wait for what is being drawn, and give it up if it takes too long, or at once."""
        if self._process is None:
            return
        try:
            self._process.wait(PATIENCE if waits else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._process.returncode = 0  # asked for
        self._note_end()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Wait for what is being drawn; after an error, give it up."""
        self.close(waits=kind is None)

    def _note_end(self) -> None:
        if self._process is None:
            return
        if self._process.returncode:
            self._complain("ended with an error")
        self._process = None

    def _complain(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"experts: drawing {what}; say why by: mixopt experts {self._path}")


def draw_step(path: Path, step: int) -> list[Path]:
    """Draw the experts of a pretraining as they are after so many steps; return the files."""
    found = PretrainingExperts.read(path)
    if found is None or found.windows[0].end > step:  # the first window is not at its end
        return []
    windows = tuple(window for window in found.windows if window.end <= step)
    logged = tuple(one for one in found.logged if one.step <= step)
    # Training may have continued while another step was drawn.
    figures = replace(found, windows=windows, logged=logged).figures()
    record = ExpertRecord(path / EXPERTS)
    files = write_figures(figures, path / FIGURES)
    for name in BY_STEP:
        picture = figure_png(figures[name])
        # MLflow's slider begins at step 0, where the first picture stands.
        first = [] if record.image(name, 0).exists() else [0]
        for place in (*first, step):
            files.append(record.image(name, place))
            write_bytes(files[-1], picture)
    return files


def drawn_files(path: Path, steps: Sequence[int]) -> tuple[list[Path], list[Path]]:
    """Return the figures that a run can have, and the pictures that its steps will have."""
    record = ExpertRecord(path / EXPERTS)
    figures = [path / FIGURES / f"{name}.svg" for name in DESCRIPTIONS]
    return figures, [record.image(name, step) for name in BY_STEP for step in (0, *steps)]


def main() -> int:
    """Draw."""
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    path, drawn = Path(sys.argv[1]), 0
    try:
        step = int(sys.argv[2])
        while step > drawn:
            draw_step(path, step)
            drawn, step = step, ExpertRecord(path / EXPERTS).last_step
    except MixoptError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
