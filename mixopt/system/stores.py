"""Addresses without credentials; objects in stores (`s3://`, `hf://`, `https://`) through fsspec.

    <cache>/objects/<key>/<name>    an object; the key is a hash of its URL, version and size

fsspec reads options and credentials from the environment as the store's own library does (AWS_*,
GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN). URLs must not contain credentials, because they are
recorded. An object is fetched completely, once on each node; a changed object has another version,
hence another key. Nothing is removed; delete the cache when no process reads from it.
"""

import errno
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

from mixopt.errors import ConfigError, CorpusError, MixoptError
from mixopt.system.files import PlainMapping, replacing
from mixopt.system.lock import made_once
from mixopt.system.plugins import needed_by

HIDDEN = "***"
USERNAME = "MLFLOW_TRACKING_USERNAME"
PASSWORD = "MLFLOW_TRACKING_PASSWORD"
TRACKING_URI = "MLFLOW_TRACKING_URI"
CACHE = "MIXOPT_CACHE"  # environment variable with the cache folder

_SERVER = r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.\-]*://)"
_USER = re.compile(rf"{_SERVER}[^/?#\s]*@")
# A password with an unescaped separator counts up to the last `@`; after a colon of HTTP's, digits
# and a separator are a port.
_ODD_USER = re.compile(r"(?P<scheme>\bhttps?://)[^/?#\s:]*:(?!\d*(?:[/?#\s]|$))\S*@")
_DATABASE_USER = re.compile(r"(?P<scheme>\b(?!https?:)[A-Za-z][A-Za-z0-9+.\-]*://)[^/\s:]*:\S*@")
_QUERY = re.compile(
    r"(?P<name>[?&;][\w.\-]*(?:pass|pwd|secret|token|key|credential|signature|auth)[\w.\-]*=)"
    r"(?P<value>[^&#\s'\"]+)",
    re.IGNORECASE,
)
_NO_SCHEME = re.compile(r"^[^/@\s]*:[^/@\s]*@")
_SPLIT = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>.*)@(?P<rest>[^@]*)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_LOCAL = re.compile(r"(?:file|local)://")
_WEB = ("http", "https")
_MAX_NAME = 150  # characters of a file name
_MIN_SECRET = 4  # characters; shorter secrets would hide parts of words
# Fields of an object's metadata that change with its content, the most reliable first.
_VERSIONS = (
    "ETag",
    "etag",
    "xet_hash",
    "blob_id",
    "md5Hash",
    "generation",
    "Content-MD5",
    "Digest",
    "LastModified",
    "Last-Modified",
    "mtime",
    "created",
)
_LOG_IN = (
    "set the credentials of the store in the environment (AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN)"
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class Login(NamedTuple):
    """Address and credentials for a client."""

    uri: str
    environment: dict[str, str]
    secrets: tuple[str, ...]


class ServerUri(str):
    """A server or database, without credentials as text."""

    given: str

    def __new__(cls, given: str) -> Self:
        """Create a URI; a ServerUri is returned unchanged."""
        uri = super().__new__(cls, without_secrets(given))
        uri.given = given.given if isinstance(given, ServerUri) else str(given)
        return uri

    @property
    def address(self) -> str:
        """The server without user information, its identity in records."""
        return str(self).replace(f"{HIDDEN}@", "")

    def login(self) -> Login:
        """Return address and credentials; `***` is filled from the environment."""
        given = self.given
        if HIDDEN in given:
            given = _from_environment(given)
        secrets = tuple(match["value"] for match in _QUERY.finditer(given))
        match = _SPLIT.fullmatch(given)
        if match is None or f"{HIDDEN}@" not in without_secrets(given):
            return Login(given, {}, secrets)
        user, _, password = match["user"].partition(":")
        texts = (password, unquote(password), match["user"])
        secrets += tuple(text for text in texts if text)
        if match["scheme"].startswith("http") and password:
            login = {USERNAME: unquote(user), PASSWORD: unquote(password)}
            return Login(f"{match['scheme']}{match['rest']}", login, secrets)
        return Login(given, {}, secrets)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without credentials."""
        return (type(self), (str(self),))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Define the type of a configuration's field."""
        from pydantic_core import core_schema

        def read(value: Any, text: Any) -> Any:
            return value if isinstance(value, cls) else cls(text(value))

        return core_schema.no_info_wrap_validator_function(read, core_schema.str_schema())


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with credentials in URIs replaced by `***`."""
    cleaned = str(text)
    for user in (_DATABASE_USER, _ODD_USER, _USER):
        cleaned = user.sub(rf"\g<scheme>{HIDDEN}@", cleaned)
    cleaned = _QUERY.sub(rf"\g<name>{HIDDEN}", cleaned)
    if "://" not in cleaned:
        cleaned = _NO_SCHEME.sub(f"{HIDDEN}@", cleaned)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:
            cleaned = cleaned.replace(secret, HIDDEN)
    return cleaned


def _from_environment(hidden: str) -> str:
    """Return a URI with `***` replaced from the environment."""
    server = os.environ.get(TRACKING_URI, "")
    if without_secrets(server) == hidden:
        return server
    user = os.environ.get(USERNAME)
    password = os.environ.get(PASSWORD)
    if hidden.startswith("http") or user is None:  # MLflow reads the environment itself
        return hidden.replace(f"{HIDDEN}@", "")
    login = quote(user, safe="")
    if password:
        login += f":{quote(password, safe='')}"
    return hidden.replace(f"{HIDDEN}@", f"{login}@")


@dataclass(frozen=True)
class StoredObject:
    """An object in a store; its version, if known, changes with its content."""

    url: str
    bytes: int
    version: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its URL, without a query."""
        scheme, _, path = self.url.partition("://")
        if scheme.lower() in _WEB:
            path = re.split(r"[?#]", path, maxsplit=1)[0]
        return path.rstrip("/").rpartition("/")[2] or "object"


def is_url(text: object) -> bool:
    """Return whether a text is a store's URL; `file://` is a path (`local_path`)."""
    return isinstance(text, str) and "://" in text and not _LOCAL.match(text)


def local_path(text: str) -> Path:
    """Return the path of a text with or without `file://`."""
    return Path(_LOCAL.sub("", text, count=1)).expanduser()


def under_folder(folder: str, name: str) -> str:
    """Return the path or URL of `name` in a folder; absolute ones are unchanged."""
    if "://" in name or Path(name).is_absolute():
        return name
    if is_url(folder):
        return f"{folder.rstrip('/')}/{name}"
    return str(Path(folder, name))


def url_fault(url: str) -> str | None:
    """Return what is wrong with a store's URL, or None."""
    scheme = _SCHEME.match(url)
    if scheme is None or "::" in url:
        return "chains of URLs are not read; give one, such as s3://bucket/folder"
    if without_secrets(url) != url:
        return f"has a secret, which would be stored with the URL; leave it out, and {_LOG_IN}"
    if not url[scheme.end() :].strip("/"):
        return "names no bucket or host"
    return None


def list_objects(url: str) -> list[StoredObject]:
    """Return the object of a URL, all objects in a folder, or the matches of a glob."""
    store, path = _opened(url)
    with _store_faults(url):
        store.invalidate_cache()
        infos = _infos(store, path, url)
    if not infos:
        fault = "the glob matches no object" if _is_glob(url) else "holds no objects"
        raise CorpusError(f"{without_secrets(url)}: {fault}")
    return sorted((_stored(store, info) for info in infos), key=lambda stored: stored.url)


def read_object(stored: StoredObject, path: Path) -> None:
    """Download an object to a path, and check it against its listing."""
    store, name = _opened(stored.url)
    with _store_faults(stored.url):
        store.get_file(name, str(path))
        store.invalidate_cache()
        now = _stored(store, store.info(name))
    if now != stored or path.stat().st_size != stored.bytes:
        raise CorpusError(
            f"{stored.url}: changed or broke off while it was being read; run again when nothing"
            " writes to it"
        )


def write_object(path: Path, url: str) -> None:
    """Upload a file atomically, replacing an existing object."""
    store, name = _opened(url)
    with _store_faults(url):
        store.put_file(str(path), name)


def object_exists(url: str) -> bool:
    """Return whether an object, or a folder with objects, exists."""
    store, path = _opened(url)
    with _store_faults(url):
        store.invalidate_cache()
        try:
            store.info(path)
        except FileNotFoundError as absent:
            if absent.__cause__ is None or _status(absent) == 404:
                return False
            raise
    return True


def cache_folder() -> Path:
    """Return this node's cache folder: MIXOPT_CACHE, or below XDG_CACHE_HOME."""
    folder = os.environ.get(CACHE)
    if folder:
        return Path(os.path.expandvars(folder)).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    caches = Path(home) if home else Path.home() / ".cache"
    return caches / "mixopt"


def fetched(stored: StoredObject) -> Path:
    """Return an object's copy on this node, fetched if necessary."""
    key = hashlib.sha256(f"{stored.url}\0{stored.version}\0{stored.bytes}".encode()).hexdigest()
    plain = "".join(map(_plain_character, stored.name))
    name = plain.lstrip(".")[-_MAX_NAME:].lstrip(".") or "object"  # suffixes tell the format
    path = cache_folder() / "objects" / key[:32] / name

    def find() -> Path | None:
        if path.exists() and path.stat().st_size == stored.bytes:
            return path
        return None

    def fetch() -> Path:
        with replacing(path) as temporary:
            read_object(stored, temporary)
        return path

    return made_once(path.parent, find, fetch)


def _plain_character(character: str) -> str:
    return character if character.isalnum() or character in "._-" else "_"


def local_copy(text: str | Path) -> Path:
    """Return the local path of a file named by the user, fetching a URL."""
    if not is_url(text):
        return local_path(str(text))
    try:
        objects = list_objects(str(text))
        if len(objects) == 1:
            return fetched(objects[0])
    except CorpusError as error:
        raise ConfigError(str(error)) from error
    raise ConfigError(f"{text}: is {len(objects)} objects, but only one is read here; name it")


@contextmanager
def naming(path: Path, url: str) -> Iterator[None]:
    """Let errors about a copy name its URL."""
    try:
        yield
    except MixoptError as error:
        text = str(error.args[0]) if error.args else ""
        error.args = (text.replace(str(path), url), *error.args[1:])
        raise


def _opened(url: str) -> tuple[Any, str]:
    name = without_secrets(url)
    fault = url_fault(url)
    if fault is not None:
        raise CorpusError(f"{name}: {fault}")
    with needed_by(f"{name}:", "'mixopt[remote]'"):
        import fsspec

        with _store_faults(url):
            store, path = fsspec.core.url_to_fs(url)
    return store, path


def _infos(store: Any, path: str, url: str) -> list[PlainMapping]:
    if _is_glob(url):
        infos = store.glob(path, detail=True)
        if not infos:
            store.info(path.split("/", maxsplit=1)[0])  # raises for a missing bucket
        start = len(re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0])
        infos = {name: info for name, info in infos.items() if info["type"] == "file"}
    else:
        info = store.info(path)
        if info["type"] != "directory":
            return [info]
        start = len(str(info["name"]).rstrip("/"))
        infos = store.find(path, detail=True)
    return [info for name, info in infos.items() if _is_visible(str(name)[start:])]


def _is_visible(name: str) -> bool:
    """Return whether a name below a folder is of an object that is not hidden."""
    if name.endswith("/"):  # marks a folder
        return False
    return not any(part.startswith(".") for part in name.split("/"))


def _is_glob(url: str) -> bool:
    scheme = url.partition("://")[0].lower()
    wildcards = "*" if scheme in _WEB else "*?["
    return any(wildcard in url for wildcard in wildcards)


def _stored(store: Any, info: PlainMapping) -> StoredObject:
    url = str(store.unstrip_protocol(info["name"]))
    if info.get("size") is None:
        raise CorpusError(f"{url}: the server does not report its size; download it yourself")
    return StoredObject(url, int(info["size"]), _version(info))


def _version(info: PlainMapping) -> str:
    """Return an object's version as text; times as seconds, as in some stores' listings."""
    for field in _VERSIONS:
        version = info.get(field)
        if not version:
            continue
        if isinstance(version, datetime):
            version = version.timestamp()
        if isinstance(version, float):
            return f"{version:.3f}"
        return str(version).strip('"')
    return ""


@contextmanager
def _store_faults(url: str) -> Iterator[None]:
    """Turn errors of a store or its library into one line; a full disk stays an OSError."""
    library = logging.getLogger("gcsfs")  # it also prints its errors
    was_disabled = library.disabled
    library.disabled = True
    try:
        yield
    except (MixoptError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise
        raise CorpusError(f"{without_secrets(url)}: {_reason(error)}") from error
    finally:
        library.disabled = was_disabled


def _reason(error: Exception) -> str:
    chain = list(_chain(error))
    names = " ".join(type(cause).__name__ for cause in chain)
    text = " ".join(without_secrets(str(chain[-1])).split())[:200] or type(chain[-1]).__name__
    status = _status(error)
    if status in (401, 403) or any(isinstance(cause, PermissionError) for cause in chain):
        return f"access is denied ({text}); {_LOG_IN}"
    if "Credential" in names:
        return f"no credentials are found; {_LOG_IN}"
    if re.search(r"Connect|Timeout|DNS|gaierror", names):
        return f"the store cannot be reached ({text})"
    if "Protocol not known" in text:
        return "unknown store; known: s3, gs, hf, memory, http, https and fsspec's others"
    if isinstance(error, FileNotFoundError) and status in (None, 404):
        return "no such object, folder or bucket"
    return f"cannot be read: {text}"


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error, if any."""
    for cause in _chain(error):
        status = getattr(cause, "status", None)
        if isinstance(status, int):
            return status
        code = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(code, int):
            return code
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__
