"""Return a trial's small files with its results, where no path is shared.

Small files do: logs, and what a command wrote. Large ones, such as checkpoints, stay on the node.
What a worker prints comes back as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from mixopt.system import inside, visible_files, write_bytes

LARGEST_FILE = 1 << 20  # bytes
LARGEST_TRIAL = 8 << 20  # bytes of all files of a trial
LARGEST_LOG = 1 << 18  # bytes of what a worker prints while it trains a group; the last ones

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


class WorkerLog:
    """A worker's log on its node, of which its owner is sent what is new."""

    def __init__(self, path: Path) -> None:
        """Begin with a log that is empty, or not there yet."""
        self.path, self._sent = path, 0

    def gather(self) -> tuple[str, bytes]:
        """Return its name, and what was printed since the last time."""
        content = b""
        with suppress(OSError), self.path.open("rb") as stream:
            end = stream.seek(0, 2)
            stream.seek(max(self._sent, end - LARGEST_LOG))
            content, self._sent = stream.read(LARGEST_LOG), end
        return self.path.name, content


def keep_log(folder: Path, name: str, content: bytes) -> None:
    """Add to the owner's copy of a log; a disk that cannot be written to ends no sweep.

    Raises:
        RunError: The name leads out of the folder.
    """
    path = inside(folder, name)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(content)


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
