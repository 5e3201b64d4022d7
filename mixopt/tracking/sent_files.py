"""Which files of a run directory may be sent: those that the run itself made, and no others.

A journal is data, and of a directory of unknown origin it may name anything. So a name in it is
resolved inside the directory, links included, and must be one that its step makes: by the patterns
of the step (`Step.artifacts`) and the hash in the run's manifest, by the patterns of a pretraining
here, or, where a loop of the user's own gave a file, by the size and hash that it had then.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from mixopt.errors import RunError
from mixopt.run_directory import STEPS, recorded_files
from mixopt.system import FileRecord, file_record, inside, shown_name

PRETRAINING = (
    "config.yaml",
    "mixture_log.jsonl",
    "experts/counts/part-*.parquet",
    "experts/layers/part-*.parquet",
    "experts/probe/*.npz",
    "experts/images/*/*.png",
    "figures/*.svg",
)
PATTERNS = {**{step.name: step.artifacts for step in STEPS}, "pretrain": PRETRAINING}
TRIALS = {step.name: step.trials for step in STEPS if step.trials is not None}


def check_sendable(
    directory: Path, step: str, name: str, given: FileRecord | None = None
) -> Path | None:
    """Return the path of a file of a run that may be sent; None where it is not there.

    Args:
        directory: The run directory.
        step: The step that it belongs to.
        name: Its name, as the journal has it.
        given: What it was when a loop of the user's own gave it.

    Raises:
        RunError: It is outside the directory, or no file that this step makes.
    """
    path = _regular(directory, name)
    if step in PATTERNS:
        if not any(_matches(name, pattern) for pattern in PATTERNS[step]):
            raise RunError(f"{directory}: {shown_name(name)} is no file that '{step}' sends")
        if path is not None and step in TRIALS and name != "config.yaml":
            _check_listed(directory, name, path)
        return path
    if path is None:
        return None
    if given is None or file_record(path) != given:
        raise RunError(
            f"{directory}: {shown_name(name)} is not the file that was given to the log; it is not"
            " sent"
        )
    return path


def check_lines(directory: Path, name: str) -> Path | None:
    """Return the path of a file of metrics; None where it is not there.

    Raises:
        RunError: It is outside the directory, hidden, or no `.jsonl`.
    """
    path = _regular(directory, name)
    if not name.endswith(".jsonl") or _is_hidden(name):
        raise RunError(f"{directory}: {shown_name(name)} is no file of metrics (.jsonl)")
    return path


def check_trials(directory: Path, step: str, folder: str | None) -> Path | None:
    """Return the folder of a step's trials; None where it has none.

    Raises:
        RunError: It is not the folder in which this step keeps trials.
    """
    if folder is None:
        return None
    if folder != TRIALS.get(step):
        raise RunError(f"{directory}: {shown_name(folder)} is not where '{step}' keeps trials")
    return inside(directory, folder)


def check_own(directory: Path, *names: str) -> None:
    """Check that what is written beside a run is in its directory, and a file or a folder.

    Raises:
        RunError: It is a link that leads out, or a pipe or device.
    """
    for name in names:
        path = inside(directory, name)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise RunError(f"{path}: is not a file; delete it")


def _check_listed(directory: Path, name: str, path: Path) -> None:
    """Check that a file of a run is what its manifest lists; config.yaml has a seal instead."""
    record = _manifest(directory, _stamp(directory)).get(name)
    if record is None or file_record(path) != record:
        raise RunError(f"{directory}: {shown_name(name)} is not what its step left; it is not sent")


@lru_cache(maxsize=4)
def _manifest(directory: Path, stamp: tuple[int, ...]) -> Mapping[str, FileRecord]:
    return recorded_files(directory)


def _stamp(directory: Path) -> tuple[int, ...]:
    try:
        stat = (directory / "steps.json").stat()
    except OSError:
        return ()
    return (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)


def _regular(directory: Path, name: str) -> Path | None:
    path = inside(directory, name)
    return path if path.is_file() else None


def _matches(name: str, pattern: str) -> bool:
    parts = PurePosixPath(name).parts
    same = len(parts) == len(PurePosixPath(pattern).parts)
    return same and not _is_hidden(name) and PurePosixPath(name).match(pattern)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)
