"""Files by the hash of their content, on this node: bounded, the least recently used removed.

    <folder>/<SHA-256>       a file, which has its name when its hash was compared
    <folder>/.<digits>.lock  who fetches one whose hash begins so
    <folder>/.room.lock      who makes room

All processes of a node share it. Of several that ask for a file at once one fetches it, and the
others wait. A file's time stamp says when it was last asked for. One that is removed while another
process has it open stays readable there, so nobody is asked before room is made.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixopt.errors import RunError
from mixopt.system.files import waiting_for
from mixopt.system.leftovers import remove_leftovers, temporary_path

_NAME = re.compile(r"[0-9a-f]{64}")
_COMING = re.compile(r"\.[0-9a-f]{64}-(\d+)\.")
_LOCKS = 3  # hexadecimal digits of a lock's name: few files, and few who wait for one another


class ContentCache:
    """A folder of files that together have at most so many bytes, those that come included."""

    def __init__(self, folder: Path, most_bytes: int | None = None) -> None:
        """Choose the folder.

        Args:
            folder: Where the files are.
            most_bytes: How many bytes they may have; None for half of what the disk had for them.
        """
        self.folder = folder
        self.most_bytes = _half(folder) if most_bytes is None else most_bytes

    def has(self, sha256: str) -> bool:
        """Tell whether a file is here."""
        return (self.folder / sha256).exists()

    def touch(self, sha256: str) -> None:
        """Keep a file that is here as if it were asked for."""
        with suppress(OSError):
            os.utime(self.folder / sha256)

    def open(self, sha256: str, size: int, fetch: Callable[[Path], None]) -> int:
        """Return a descriptor of a file, fetched unless it is here; the caller closes it.

        Args:
            sha256: The hash of its content, 64 hexadecimal digits.
            size: Its bytes.
            fetch: Writes the content to a path, and checks that it has this hash.

        Raises:
            RunError: It does not fit, or the folder cannot be written.
            MixoptError: What `fetch` raises.
        """
        path = f"{self.folder}{os.sep}{sha256}"  # Path takes longer than opening it
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except FileNotFoundError:
                self.bring(sha256, size, fetch)
                continue
            if os.fstat(descriptor).st_size == size:
                os.utime(descriptor if os.utime in os.supports_fd else path)
                return descriptor
            os.close(descriptor)
            Path(path).unlink(missing_ok=True)

    def bring(self, sha256: str, size: int, fetch: Callable[[Path], None]) -> None:
        """Fetch a file unless it is here; arguments and errors are those of `open`."""
        path = self.folder / sha256
        if path.exists():
            return
        if size > self.most_bytes:
            raise RunError(
                f"{self.folder}: a file of {size:,} bytes does not fit into {self.most_bytes:,}; "
                f"enlarge the cache: cache_bytes={4 * size}"
            )
        with waiting_for(self.folder, f".{sha256[:_LOCKS]}.lock"):
            if path.exists():
                return
            with self._reserved(path, size) as temporary:
                fetch(temporary)
                with temporary.open("rb+") as stream:
                    os.fsync(stream.fileno())
                temporary.replace(path)

    @contextmanager
    def _reserved(self, path: Path, size: int) -> Iterator[Path]:
        """Give a temporary path for which there is room; its name says how much that is."""
        temporary = temporary_path(path.with_name(f"{path.name}-{size}"))
        try:
            with waiting_for(self.folder, ".room.lock"):
                remove_leftovers(self.folder)
                self._make_room(size)
                temporary.touch()
            yield temporary
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove what was not asked for longest, until a file fits beside all that come."""
        held = size + _coming_bytes(self.folder)  # before the others, of which one may become one
        files = sorted(_files(self.folder))
        held += sum(bytes for _, bytes, _ in files)
        for _, bytes, file in files:
            if held <= self.most_bytes:
                return
            file.unlink(missing_ok=True)
            held -= bytes


def _coming_bytes(folder: Path) -> int:
    found = (_COMING.match(entry.name) for entry in os.scandir(folder))
    return sum(int(one[1]) for one in found if one)


def _files(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Give when each file was last asked for, its bytes and its path."""
    for entry in os.scandir(folder):
        if _NAME.fullmatch(entry.name):
            status = entry.stat()
            yield status.st_mtime_ns, status.st_size, Path(entry.path)


def _half(folder: Path) -> int:
    """Return half of what the disk has for these files: what is free, and what they have."""
    there = folder
    while not there.exists():
        there = there.parent
    held = sum(bytes for _, bytes, _ in _files(folder)) if folder.exists() else 0
    return (shutil.disk_usage(there).free + held) // 2
