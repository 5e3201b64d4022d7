"""Objects of stores on this node: each is fetched once, whatever number of processes ask for it.

    <cache>/objects/<key>/<name>         the object; the key is a hash of its URL and version
    <cache>/objects/<key>/object.json    what it is: URL, version, size, SHA-256; written last

A changed object has another version, hence another key: what is read is what the store has now.
Nothing here is removed (shards of a store are: mixopt.system.content_cache); whoever needs the room
deletes it, or parts of it, when nothing reads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mixopt.errors import CorpusError, MixoptError
from mixopt.system.checked_reading import read_json
from mixopt.system.files import replacing, waiting_for, write_json
from mixopt.system.manifest import FileRecord, Verifier, file_record
from mixopt.system.object_store import StoredObject, is_url, list_objects, local_path, read_object

Made = TypeVar("Made")
CACHE = "MIXOPT_CACHE"  # names another folder
_RECORD = "object.json"
_LONGEST = 150  # characters of a file's name


@dataclass(frozen=True)
class CachedObject:
    """An object that is here.

    Attributes:
        stored: What it is in its store.
        path: Its copy.
        sha256: The hash of its content.
    """

    stored: StoredObject
    path: Path
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return where it is from and what it is, for records."""
        version = {"version": self.stored.version} if self.stored.version else {}
        size = {"bytes": self.stored.bytes, "sha256": self.sha256}
        return {"url": self.stored.url, **version, **size}


def cache_folder() -> Path:
    """Return this node's folder of what was fetched: MIXOPT_CACHE, or below XDG_CACHE_HOME."""
    given = os.environ.get(CACHE)
    if given:
        return Path(os.path.expandvars(given)).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mixopt"


def fetched(stored: StoredObject, error: type[MixoptError] = CorpusError) -> CachedObject:
    """Return an object's copy on this node, fetched unless it is here.

    Of several processes that ask at once, one fetches it, and the others wait.

    Args:
        stored: The object.
        error: What is raised.

    Raises:
        MixoptError: `error`; it cannot be read, or changed while it was read.
        RunError: The cache cannot be written, or the disk is full.
    """
    folder = cache_folder() / "objects" / _key(stored)
    return made_once(folder, lambda: _found(folder, stored), lambda: _fetch(folder, stored, error))


def made_once(folder: Path, found: Callable[[], Made | None], make: Callable[[], Made]) -> Made:
    """Return what is in a folder, or make it; of several processes one does, and others wait.

    Args:
        folder: It is locked while the thing is made.
        found: Returns what is there and whole, else None.
        make: Makes it.

    Raises:
        RunError: The folder cannot be written.
    """
    there = found()
    if there is None:
        with waiting_for(folder):
            there = found()
            return make() if there is None else there
    return there


def local_copy(text: str | Path, error: type[MixoptError] = CorpusError) -> Path:
    """Return the path of a file; of the one object that a URL names, that of its copy.

    Raises:
        MixoptError: `error`; the URL names no object, or several, or cannot be read.
        RunError: The cache cannot be written.
    """
    if not is_url(text):
        return local_path(str(text))
    objects = list_objects(str(text), error)
    if len(objects) > 1:
        raise error(f"{text}: is {len(objects)} objects, but only one is read here; name it")
    return fetched(objects[0], error).path


def _key(stored: StoredObject) -> str:
    text = f"{stored.url}\0{stored.version}\0{stored.bytes}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _found(folder: Path, stored: StoredObject) -> CachedObject | None:
    """Return what is here, if it is whole; one that is damaged counts as none."""
    record = folder / _RECORD
    try:
        content = read_json(record) if record.exists() else None
    except MixoptError:
        return None
    sha256 = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(sha256, str):
        return None
    name = _file_name(stored)
    verifier = Verifier(folder)
    if verifier.fault(name, FileRecord(stored.bytes, sha256)) is not None:
        return None
    verifier.remember()
    return CachedObject(stored, folder / name, sha256)


def _fetch(folder: Path, stored: StoredObject, error: type[MixoptError]) -> CachedObject:
    path = folder / _file_name(stored)
    with replacing(path) as temporary:
        read_object(stored, temporary, error)
    found = CachedObject(stored, path, file_record(path).sha256)
    write_json(folder / _RECORD, found.to_json())
    return found


def _file_name(stored: StoredObject) -> str:
    """Return a name with the object's suffixes, which tell how it is read."""
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in stored.name)
    return plain.lstrip(".")[-_LONGEST:].lstrip(".") or "object"
