"""Token files in stores: fetched to this node, and named there as the store names them.

    <cache>/tokens/<key>/files/<name>    links to objects in the cache (mixopt.system.object_cache)

Readers find what belongs to a file beside it, so that objects keep their names and places.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mixopt.errors import CorpusError, RunError
from mixopt.system import (
    StoredObject,
    cache_folder,
    fetched,
    list_objects,
    made_once,
    temporary_path,
)


def stored_tokens(url: str, format: str | None) -> Path:
    """Return a folder with the files that a URL names and those that belong to them.

    Args:
        url: An object, a prefix of Megatron's, a folder or a glob.
        format: Of which tool they are; None where that is found.

    Raises:
        CorpusError: There are none, or they cannot be read.
        RunError: The cache cannot be written.
    """
    objects = list_objects(_with_companions(url, format))
    names = _names([stored.url for stored in objects])
    paths = [fetched(stored).path for stored in objects]
    folder = cache_folder() / "tokens" / _key(objects)
    links = dict(zip(names, paths, strict=True))
    return made_once(folder, lambda: _found(folder, links), lambda: _made(folder, links))


def _with_companions(url: str, format: str | None) -> str:
    """Return a glob of what an object's name stands for, where that is several objects."""
    stem = url.removesuffix(".bin").removesuffix(".idx")
    if format == "megatron" and not url.endswith("/"):
        return f"{stem}.*" if stem != url or not url.endswith("*") else url
    return f"{url}*" if format == "datatrove" and url.endswith(".ds") else url


def _names(urls: Sequence[str]) -> list[str]:
    """Return the URLs below the folder that all are in."""
    base = os.path.commonpath([url.rpartition("/")[0].partition("://")[2] for url in urls])
    names = [url.partition("://")[2].removeprefix(base).lstrip("/") for url in urls]
    for url, name in zip(urls, names, strict=True):
        if not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise CorpusError(f"{url}: cannot be a file name")
    return names


def _key(objects: Sequence[StoredObject]) -> str:
    text = "\n".join(f"{one.url}\0{one.version}\0{one.bytes}" for one in objects)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _found(folder: Path, links: dict[str, Path]) -> Path | None:
    files = folder / "files"
    there = all((files / name).resolve() == path.resolve() for name, path in links.items())
    return files if there else None


def _made(folder: Path, links: dict[str, Path]) -> Path:
    files = folder / "files"
    try:
        for name, path in links.items():
            place = files / name
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_path(place)
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(path.resolve())
            temporary.replace(place)
    except OSError as error:
        raise RunError(f"{files}: cannot be written: {error.strerror or error}") from error
    return files
