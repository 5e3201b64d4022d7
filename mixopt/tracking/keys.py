"""Names as MLflow takes them: keys of metrics, parameters and artifacts.

MLflow refuses most punctuation, and what is no plain path (`//`, `..`). Such characters are written
by their code; the tag `mixopt.names` says what the names were.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

from mixopt.errors import MixoptError
from mixopt.system import checked_as, parse_json

NOTE = "mlflow.note.content"  # the tag that MLflow shows as a run's description
LONGEST = 250
NAMES = "mixopt.names"
_TAG_LENGTH = 5000  # MLflow's limit is 8000 bytes


def key_of(name: str) -> str:
    """Return the key of a name: itself where MLflow takes it."""
    key = "/".join(_segment(part) for part in name.split("/"))
    if len(key) <= LONGEST:
        return key
    return f"{key[: LONGEST - 13]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def name_tags(names: Iterable[str]) -> dict[str, str]:
    """Return tags that hold the names that keys do not spell; long ones go on in further tags."""
    spelled = {key_of(name): name for name in names if key_of(name) != name}
    text = json.dumps(spelled) if spelled else ""
    parts = [text[at : at + _TAG_LENGTH] for at in range(0, len(text), _TAG_LENGTH)]
    return {_tag(number): part for number, part in enumerate(parts)}


def names_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return what `name_tags` kept: names by key; none where it is damaged."""
    text, number = "", 0
    while (part := tags.get(_tag(number))) is not None:
        text, number = text + part, number + 1
    try:
        return checked_as(dict[str, str], parse_json(text or "{}", NAMES), NAMES)
    except MixoptError:  # written by another tool, or cut off
        return {}


def _tag(number: int) -> str:
    return f"{NAMES}.{number}" if number else NAMES


def _segment(part: str) -> str:
    if part in {"", ".", ".."}:
        return "_" if not part else part.replace(".", "_2e_")
    return re.sub(r"[^\w\-. :]", lambda found: f"_{ord(found[0]):x}_", part)
