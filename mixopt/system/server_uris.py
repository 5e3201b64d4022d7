"""URIs of servers and databases, shown without credentials: `http://***@host`."""

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

HIDDEN = "***"
USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
NAMED = "MLFLOW_TRACKING_URI"

_SCHEME = r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.\-]*://)"
_USER = re.compile(rf"{_SCHEME}[^/?#\s]*@")
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
        match = _SPLIT.fullmatch(given) if f"{HIDDEN}@" in without_secrets(given) else None
        if match is None:
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
        cleaned = cleaned.replace(secret, HIDDEN) if len(secret) >= 4 else cleaned
    return cleaned


def _from_environment(hidden: str) -> str:
    """Return a URI with `***` replaced from the environment."""
    server = os.environ.get(NAMED, "")
    if without_secrets(server) == hidden:
        return server
    user, password = os.environ.get(USERNAME), os.environ.get(PASSWORD)
    if hidden.startswith("http") or user is None:  # MLflow reads the environment itself
        return hidden.replace(f"{HIDDEN}@", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return hidden.replace(f"{HIDDEN}@", f"{login}@")
