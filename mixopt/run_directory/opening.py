"""Make, open and lock a run directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mixopt.errors import RunError
from mixopt.run_directory.run import Run
from mixopt.run_directory.step import STEPS
from mixopt.system import is_leftover, only_one, write_text

if TYPE_CHECKING:
    from mixopt.config import Config


def open_run(config: Config, path: str | Path, *, source: str = "", redo: str | None = None) -> Run:
    """Make the run directory, or open one that is of the same configuration.

    Args:
        config: The experiment.
        path: The run directory.
        source: The configuration file, for messages.
        redo: Delete the outputs of this step and of those after it first.

    Raises:
        RunError: The directory is another run's, or cannot be written.
    """
    run = Run(Path(path), config, source)
    record = run.path / "config.yaml"
    if redo is not None:
        run.check_before(redo)
        run.discard(redo)
    if record.exists():
        for step in STEPS:
            run.is_done(step.name)
    text = "# The resolved configuration of this run; written by mixopt.\n"
    text += yaml.safe_dump(run.content, sort_keys=False, allow_unicode=True)
    if not record.exists() or record.read_text(encoding="utf-8") != text:
        write_text(record, text)
    return run


@contextmanager
def working_in(path: Path) -> Iterator[None]:
    """Have a run directory to oneself while the block runs.

    Raises:
        RunError: It holds other files than a run's, or another process is at work in it.
    """
    others = [e for e in path.iterdir() if not is_leftover(e.name)] if path.is_dir() else []
    if others and not (path / "config.yaml").exists():
        raise RunError(f"{path}: is not empty and not a run directory; use another --out")
    with only_one(path):
        yield


def load_run(path: str | Path) -> Run:
    """Open a run directory to look at what it holds.

    Raises:
        RunError: The directory is not a run's.
    """
    from mixopt.config import load_config

    record = Path(path) / "config.yaml"
    if not record.exists():
        raise RunError(f"{path}: has no config.yaml; make it with mixopt run CONFIG --out {path}")
    return Run(Path(path), load_config(record), str(record))
