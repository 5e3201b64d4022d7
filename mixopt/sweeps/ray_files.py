"""What a trial leaves in its folder of files comes back with its results, where no path is shared.

Small files do: logs, and what a command wrote. Large ones, such as checkpoints, stay on the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from mixopt.system import inside, visible_files, write_bytes

LARGEST_FILE = 1 << 20  # bytes
LARGEST_TRIAL = 8 << 20  # bytes of all files of a trial

TrialFiles = Mapping[str, bytes]


def gather_files(folder: Path, trials: Iterable[str]) -> dict[str, TrialFiles]:
    """Return the small files of trials, by trial and by their path in its folder."""
    found = {trial: _of_trial(folder / trial) for trial in trials}
    return {trial: files for trial, files in found.items() if files}


def keep_files(folder: Path, files: Mapping[str, TrialFiles]) -> None:
    """Write gathered files below a folder.

    Raises:
        RunError: A name leads out of the folder, or it cannot be written.
    """
    for trial, contents in files.items():
        for name, content in contents.items():
            write_bytes(inside(inside(folder, trial), name), content)


def _of_trial(folder: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    total = 0
    for path in visible_files(folder) if folder.is_dir() else []:
        with suppress(OSError):
            size = path.stat().st_size
            if size <= LARGEST_FILE and total + size <= LARGEST_TRIAL:
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
                total += size
    return found
