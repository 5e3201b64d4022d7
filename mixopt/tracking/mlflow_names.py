"""Encode names as valid MLflow keys, and the name of a tag that MLflow reads itself."""

from __future__ import annotations

import hashlib
import posixpath
import re

NOTE = "mlflow.note.content"  # the tag that MLflow shows as description
MAX_KEY = 250  # characters, since MLflow 2.0
HASH_LENGTH = 12  # characters, of the whole name at the end of a shortened key


def mlflow_key(name: str) -> str:
    """Return a name as a valid MLflow key, unchanged if possible."""
    key = re.sub(r"[^\w\-. :/]", _code_point, name) or "_"
    is_relative = posixpath.normpath(key) != key or key.startswith("..") or key == "."
    if is_relative or key.startswith("/"):
        key = re.sub("[./]", "_", key)  # MLflow would read it as a path
    if len(key) <= MAX_KEY:
        return key
    start = key[: MAX_KEY - HASH_LENGTH - 1]
    full_hash = hashlib.sha256(name.encode()).hexdigest()
    return f"{start}_{full_hash[:HASH_LENGTH]}"


def _code_point(character: re.Match[str]) -> str:
    return f"_{ord(character[0]):x}_"
