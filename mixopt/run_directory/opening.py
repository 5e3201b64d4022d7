"""Create, open and lock a run directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mixopt.config import Config, dump_sections, load_config
from mixopt.errors import RunError, is_control
from mixopt.run_directory.run import Run
from mixopt.run_directory.step_log import RECORD
from mixopt.run_directory.steps import STEPS
from mixopt.system import (
    check_links,
    check_sealed_text,
    is_leftover,
    only_one,
    read_bytes,
    sealed_text,
    write_text,
)

HEADER = "The resolved configuration of this run; written by mixopt."
MAX_RUNS = 20  # listed in a message
MLFLOW_FILES = ("mlartifacts", "mlruns", "mlflow.db")


def open_run(
    config: Config,
    path: str | Path,
    *,
    source: str = "",
    redo: str | None = None,
    trust: bool = False,
) -> Run:
    """Create a run directory, or open one with the same configuration."""
    run = Run(Path(path), config, source, trust)
    record = run.path / RECORD
    if redo is not None:
        run.log.check_before(redo)
        run.log.discard(redo, files=not run.log.differs_only_in_reading)
    if record.exists():
        for step in STEPS:
            run.is_done(step.name)
    content = yaml.safe_dump(dump_sections(config), sort_keys=False, allow_unicode=True)
    text = sealed_text(content, HEADER)
    if not record.exists() or read_bytes(record) != text.encode():
        write_text(record, text)
    return run


@contextmanager
def working_in(path: Path) -> Iterator[None]:
    """Lock a run directory for the block."""
    text = str(path.absolute())
    for letter in text:
        if letter in "?#%" or is_control(letter):  # it would be misread in a database's URL
            raise RunError(
                f"{text}: a run directory's path cannot have {letter!r}; use another --out"
            )
    if path.exists() and not path.is_dir():
        raise RunError(f"{path}: is a file, not a run directory; use another --out")
    has_other_files = path.exists() and any(_is_unknown(entry.name) for entry in path.iterdir())
    if has_other_files and not (path / RECORD).exists():
        raise RunError(f"{path}: is not empty and not a run directory; use another --out")
    with only_one(path):
        yield


def _is_unknown(name: str) -> bool:
    """Return whether neither mixopt nor MLflow leaves a file of this name before a run starts."""
    return not is_leftover(name) and name.partition("-")[0] not in MLFLOW_FILES


def load_run(path: str | Path, *, trust: bool = False) -> Run:
    """Open a run directory for reading.

    Unless it is trusted, no code that it names is imported, and no link out of it is followed.

    Args:
        path: The directory.
        trust: Whether the directory is trusted.

    Raises:
        RunError: It is not a run directory, its record was changed, or a link leads out of it.

    Examples:
        >>> run = mixopt.load_run("runs/mine")
        >>> run
        Run('runs/mine': 7 of 7 steps done)
    """
    path = Path(path)
    record = path / RECORD
    if not record.exists():
        if (path / "fit.json").exists() or (path / "fit").is_dir():
            raise RunError(
                f"{path}: is a fit of tables, not a run; it answers mixopt propose, predict"
                " --weights, status --readiness and fit --test, and its mixtures are in"
                f" {path}/proposals"
            )
        runs = sorted(file.parent.name for file in path.glob(f"*/{RECORD}"))[:MAX_RUNS]
        hint = f"create it with mixopt run CONFIG --out {path}"
        if runs:
            hint = f"give one of the runs in it: {', '.join(runs)}"
        raise RunError(f"{path}: has no config.yaml; {hint}")
    if (path / "checkpoints").exists():
        raise RunError(
            f"{path}: is a pretraining, not the run of an experiment: metrics.jsonl has its losses,"
            " and mixopt verify checks its files"
        )
    if not trust:
        check_links(path)
    hint = (
        "edit the file that the run was made from, and rewrite this one: mixopt run CONFIG --out "
        f"{path}"
    )
    check_sealed_text(record, HEADER, hint=hint)
    return Run(path, load_config(record, trust=trust), str(record), trust)
