"""One file of tokens, and the checks of it on disk."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.corpus.index_files import INDEX, PREPARE_AGAIN, absent, value_fault
from mixopt.errors import ShardError
from mixopt.system import check_name, inside, shown_name

FEW = 1024  # shards that are looked at one by one when they are opened, and mapped all at once
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """One file of tokens.

    Attributes:
        file: Its name in the folder.
        tokens: How many it has.
        sha256: The hash of its content.
        link: What it is a link to, where `import_tokens` linked it.
    """

    file: str
    tokens: int
    sha256: str
    link: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the entry of an index."""
        entry = {"file": self.file, "tokens": self.tokens, "sha256": self.sha256}
        return entry if self.link is None else {**entry, "link": self.link}

    @classmethod
    def from_json(cls, folder: Path, place: int, entry: object) -> Shard:
        """Return the shard of an entry of an index.

        Raises:
            ShardError: A field is missing or wrong.
        """
        where = f"shards.{place}"
        if not isinstance(entry, dict):
            raise damaged(folder, f"{where}: expected fields, got {type(entry).__name__}")
        for name, kind in _FIELDS.items():
            if name not in entry:
                raise damaged(folder, f"{where}.{name}: is missing")
            fault = value_fault(entry[name], kind)
            if fault is not None:
                raise damaged(folder, f"{where}.{name}: {fault}")
        if not _HASH.fullmatch(entry["sha256"]):
            raise damaged(folder, f"{where}.sha256: {shown_name(entry['sha256'])} is not a SHA-256")
        check_name(entry["file"], f"{folder / INDEX}: file", ShardError)
        link = entry.get("link")
        known = None if link is None else str(link)
        return cls(entry["file"], entry["tokens"], entry["sha256"], known)


def damaged(folder: Path, what: str) -> ShardError:
    """Return the error for an index of shards that cannot be right."""
    return ShardError(f"{folder / INDEX}: {what}; {PREPARE_AGAIN}")


def found_shard(folder: Path, shard: Shard, size: int) -> os.stat_result:
    """Return what the file system says of a shard that is there and has its size.

    Args:
        folder: Where it is.
        shard: What it is.
        size: Its bytes.

    Raises:
        ShardError: It is absent, no file, of another size, or leads out of the folder and its index
            does not list it.
    """
    path = os.path.join(folder, shard.file)
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            check_place(folder, shard)
            status = os.stat(path)
    except OSError as error:
        raise absent(Path(path), ShardError) from error
    check_status(path, status, size)
    return status


def check_place(folder: Path, shard: Shard) -> None:
    """Check that a shard that is a link leads into its folder, or where its index says.

    Raises:
        ShardError: It does not.
    """
    if shard.link is None:
        inside(folder, shard.file, ShardError)
        return
    found = os.path.realpath(folder / shard.file)
    if found != shard.link:
        raise ShardError(
            f"{folder / shard.file}: is a link to {found}, its index says {shard.link!r}"
        )


def check_status(path: str | Path, status: os.stat_result, size: int) -> None:
    """Check that what is there is a file of some bytes.

    Raises:
        ShardError: It is something else, or has another size.
    """
    if not stat.S_ISREG(status.st_mode):  # a pipe would never end
        raise ShardError(f"{path}: is not a file; {PREPARE_AGAIN}")
    if status.st_size != size:
        what = "truncated" if status.st_size < size else "altered"
        raise ShardError(
            f"{path}: {what}: {status.st_size} bytes, but its index has {size}; {PREPARE_AGAIN}"
        )


_FIELDS: dict[str, type] = {"file": str, "tokens": int, "sha256": str}
