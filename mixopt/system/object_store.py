"""Objects of stores by URL (`s3://`, `gs://`, `hf://`, `memory://`, `https://`): list, read, write.

fsspec opens the store, and reads its options and credentials from the environment as the store's
own library does (AWS_*, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN). A URL has no secret: it would
be kept wherever a URL is. What is in a cache here is in mixopt.system.object_cache.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from mixopt.errors import CorpusError, MixoptError, PluginError
from mixopt.system.server_uris import without_secrets

Answer = TypeVar("Answer")
BACK_OFF = 0.5  # seconds before a second attempt, twice as many before a third
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_LOCAL = re.compile(r"(?:file|local)://")
_WEB = ("http", "https")
# Fields of what stores say of an object that change with its content, the surest first.
_VERSIONS = (
    "ETag", "etag", "xet_hash", "blob_id", "md5Hash", "generation", "Content-MD5", "Digest",
    "LastModified", "Last-Modified", "mtime", "created",
)  # fmt: skip
_LOG_IN = (
    "set the credentials of the store in the environment (AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN)"
)


@dataclass(frozen=True)
class StoredObject:
    """An object of a store, as the store says that it is.

    Attributes:
        url: Where it is.
        bytes: Its size.
        version: What changes with its content: an entity tag, or when it was last changed; empty
            where the store says neither.
    """

    url: str
    bytes: int
    version: str

    @property
    def name(self) -> str:
        """The last part of its URL, without a query."""
        return _last_part(self.url)


def is_url(text: object) -> bool:
    """Tell the URL of a store from a path; `file://` is a path (`local_path`)."""
    return isinstance(text, str) and "://" in text and not _LOCAL.match(text)


def local_path(text: str) -> Path:
    """Return the path that a text names, with or without `file://`."""
    return Path(_LOCAL.sub("", text, count=1)).expanduser()


def join_url(folder: str, name: str) -> str:
    """Return the URL of what is called `name` in a folder."""
    return f"{folder.rstrip('/')}/{name.lstrip('/')}"


def under_folder(folder: str, name: str) -> str:
    """Return the path or URL of `name` in a folder; one that is whole already is itself."""
    if "://" in name or Path(name).is_absolute():
        return name
    return join_url(folder, name) if is_url(folder) else str(Path(folder, name))


def url_fault(url: str) -> str | None:
    """Return what is wrong with a URL of a store; None where it can be asked for."""
    found = _SCHEME.match(url)
    if found is None or "::" in url:
        return "chains of URLs are not read; give one, such as s3://bucket/folder"
    if without_secrets(url) != url:
        return f"has a secret, which would be stored with the URL; leave it out, and {_LOG_IN}"
    if not url[found.end() :].strip("/"):
        return "names no bucket or host"
    return None


def list_objects(
    url: str, error: type[MixoptError] = CorpusError, *, hidden: bool = False, attempts: int = 1
) -> list[StoredObject]:
    """Return the object of a URL, all objects below a folder, or those that a glob matches.

    Args:
        url: An object, a folder, or a glob (`*`, `?`, `[ab]`, `**`; of http `*` alone).
        error: What is raised.
        hidden: Whether hidden ones below a folder, such as `.lock`, are listed too.
        attempts: How often a store that cannot be reached, or is busy, is asked.

    Returns:
        Objects in order of their URLs.

    Raises:
        MixoptError: `error`; there is no such object, the store refuses, or cannot be reached.
        PluginError: The library of the store is not installed.
    """
    store, path = _opened(url, error)

    def listed() -> list[Mapping[str, Any]]:
        store.invalidate_cache()
        return _infos(store, path, url, hidden=hidden)

    with _told(url, error, attempts):
        infos = _patiently(listed, attempts)
    if not infos:
        what = "the glob matches no object" if _is_glob(url) else "holds no objects"
        raise error(f"{without_secrets(url)}: {what}")
    return sorted((_stored(store, info, error) for info in infos), key=lambda found: found.url)


def read_object(
    stored: StoredObject, path: Path, error: type[MixoptError] = CorpusError, *, attempts: int = 1
) -> None:
    """Write an object's content to a path, and check that it is what was listed.

    Args:
        stored: The object.
        path: Where it is written; the caller gives it its name.
        error: What is raised.
        attempts: How often a store that cannot be reached, or breaks off, is asked.

    Raises:
        MixoptError: `error`; it cannot be read, is shorter or longer than it should be, or changed
            while it was read.
        OSError: The file cannot be written.
    """
    store, name = _opened(stored.url, error)

    def read() -> StoredObject:
        store.get_file(name, str(path))
        store.invalidate_cache()
        return _stored(store, store.info(name), error)

    with _told(stored.url, error, attempts):
        now = _patiently(read, attempts)
    if (now.bytes, now.version) != (stored.bytes, stored.version):
        raise error(
            f"{stored.url}: changed while it was being read; run again when nothing writes to it"
        )
    found = path.stat().st_size
    if found != stored.bytes:
        raise error(
            f"{stored.url}: {found:,} bytes were received, but the store lists "
            f"{stored.bytes:,}; run again"
        )


def object_exists(url: str, error: type[MixoptError] = CorpusError) -> bool:
    """Tell whether there is an object, or a folder with objects, of this URL.

    Raises:
        MixoptError: `error`; the store refuses, or cannot be reached.
    """
    store, path = _opened(url, error)
    with _told(url, error):
        store.invalidate_cache()
        try:
            store.info(path)
        except FileNotFoundError as absent:
            if absent.__cause__ is None or _status(absent) == 404:
                return False
            raise
    return True


def write_object(path: Path, url: str, error: type[MixoptError] = CorpusError) -> None:
    """Put a file into a store, in place of what is there; a reader sees all of it or none.

    Raises:
        MixoptError: `error`; the store refuses, or cannot be reached.
    """
    store, name = _opened(url, error)
    with _told(url, error):
        store.put_file(str(path), name)


@contextmanager
def naming(path: Path, url: str) -> Iterator[None]:
    """Let errors about a file name the URL that it is a copy of."""
    try:
        yield
    except MixoptError as error:
        said = str(error.args[0]) if error.args else ""
        error.args = (said.replace(str(path), url), *error.args[1:])
        raise


def _opened(url: str, error: type[MixoptError]) -> tuple[Any, str]:
    shown = without_secrets(url)
    fault = url_fault(url)
    if fault is not None:
        raise error(f"{shown}: {fault}")
    try:
        import fsspec

        with _told(url, error):
            store, path = fsspec.core.url_to_fs(url)
    except ImportError as missing:
        raise PluginError(
            f"{shown}: needs {missing.name or 'the library of this store'}:"
            " pip install 'mixopt[remote]'"
        ) from missing
    return store, path


def _infos(store: Any, path: str, url: str, *, hidden: bool) -> list[Mapping[str, Any]]:
    if _is_glob(url):
        found = store.glob(path, detail=True)
        bucket = path.split("/", maxsplit=1)[0]
        if not found:
            store.info(bucket)  # one that is not there is an error of its own
        start = len(re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0])
        found = {name: one for name, one in found.items() if one["type"] == "file"}
    else:
        info = store.info(path)
        if info["type"] != "directory":
            return [info]
        start = len(str(info["name"]).rstrip("/"))
        found = store.find(path, detail=True)
    below = {str(name)[start:]: one for name, one in found.items()}
    names = [name for name in below if not name.endswith("/")]  # a slash marks a folder
    return [below[name] for name in names if hidden or not _is_hidden(name)]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _is_glob(url: str) -> bool:
    scheme = url.partition("://")[0].lower()
    return any(wild in url for wild in ("*" if scheme in _WEB else "*?["))


def _stored(store: Any, info: Mapping[str, Any], error: type[MixoptError]) -> StoredObject:
    url = str(store.unstrip_protocol(info["name"]))
    if info.get("size") is None:
        raise error(f"{url}: the server does not report its size; download it yourself")
    said = [_plain(info[field]) for field in _VERSIONS if info.get(field)]
    return StoredObject(url, int(info["size"]), said[0] if said else "")


def _plain(version: Any) -> str:
    """Return a version as text; a time as seconds, as which some stores have it in listings."""
    if isinstance(version, datetime):
        version = version.timestamp()
    return f"{version:.3f}" if isinstance(version, float) else str(version).strip('"')


def _last_part(url: str) -> str:
    path = url.partition("://")[2]
    if url.partition("://")[0].lower() in _WEB:
        path = re.split(r"[?#]", path, maxsplit=1)[0]
    return path.rstrip("/").rpartition("/")[2] or "object"


def _patiently(ask: Callable[[], Answer], attempts: int) -> Answer:
    """Ask a store; once more, after a while, where it may answer then."""
    for attempt in range(1, attempts):
        try:
            return ask()
        except Exception as error:
            if isinstance(error, MixoptError) or _is_of_this_disk(error) or not _may_pass(error):
                raise
        time.sleep(BACK_OFF * 2 ** (attempt - 1))
    return ask()


def _may_pass(error: Exception) -> bool:
    """Tell whether what a store met may be over soon: no connection, a busy server, a break."""
    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    names = " ".join(type(one).__name__ for one in _chain(error))
    return re.search(r"Connect|Timeout|DNS|gaierror|Payload|Incomplete|Reset", names) is not None


@contextmanager
def _told(url: str, kind: type[MixoptError], attempts: int = 1) -> Iterator[None]:
    """Say in one line what a store or its library raises; a full disk stays what it is."""
    library = logging.getLogger("gcsfs")  # it prints what it raises
    was, library.disabled = library.disabled, True
    try:
        yield
    except (MixoptError, ImportError):
        raise
    except Exception as error:
        if _is_of_this_disk(error):
            raise
        tried = f", {attempts} times" if attempts > 1 and _may_pass(error) else ""
        raise kind(f"{without_secrets(url)}: {_reason(error)}{tried}") from error
    finally:
        library.disabled = was


def _is_of_this_disk(error: Exception) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def _reason(error: Exception) -> str:
    chain = list(_chain(error))
    names = " ".join(type(one).__name__ for one in chain)
    said = " ".join(without_secrets(str(chain[-1])).split())[:200] or type(chain[-1]).__name__
    status = _status(error)
    if status in (401, 403) or any(isinstance(one, PermissionError) for one in chain):
        return f"access is denied ({said}); {_LOG_IN}"
    if "Credential" in names:
        return f"no credentials are found; {_LOG_IN}"
    if re.search(r"Connect|Timeout|DNS|gaierror", names):
        return f"the store cannot be reached ({said})"
    if "Protocol not known" in said:
        return "unknown store; known: s3, gs, hf, memory, http, https and fsspec's others"
    if isinstance(error, FileNotFoundError) and status in (None, 404):
        return "no such object, folder or bucket"
    return f"cannot be read: {said}"


def _status(error: BaseException) -> int | None:
    """Return the status of HTTP that a library met, where it says one."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        for status in (getattr(one, "status", None), getattr(response, "status_code", None)):
            if isinstance(status, int):
                return status
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__
