"""A seal: the SHA-256 of a file's content, kept in the file, so that changes are noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError, RunError
from mixopt.system.checked_reading import checked_as, read_bytes, read_json
from mixopt.system.files import write_json

SEAL = "sha256"
_LINE = "# sha256: "


def seal_of(content: Mapping[str, Any]) -> str:
    """Return the seal of plain values as JSON has them; a seal among them does not count."""
    values = {name: value for name, value in content.items() if name != SEAL}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _hash(text.encode())


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with their seal."""
    values = {name: value for name, value in content.items() if name != SEAL}
    # A seal is of what a reader will see: JSON turns tuples to lists, and keys to text.
    return {**values, SEAL: seal_of(json.loads(json.dumps(values, allow_nan=False)))}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values and their seal as JSON, at once."""
    write_json(path, sealed(content))


def read_sealed(
    path: Path,
    shape: Any = None,
    *,
    mend: str,
    error: type[MixoptError] = RunError,
) -> Any:
    """Read what `write_sealed` wrote."""
    content = read_json(path, error=error)
    if not isinstance(content, dict):
        raise error(f"{path}: expected fields, got {type(content).__name__}; {mend}")
    check_seal(content, str(path), mend=mend, error=error)
    values = {name: value for name, value in content.items() if name != SEAL}
    return values if shape is None else checked_as(shape, values, str(path), error)


def check_seal(
    content: Mapping[str, Any], where: str, *, mend: str, error: type[MixoptError] = RunError
) -> None:
    """Check that values are those that were sealed."""
    if SEAL not in content:
        raise error(f"{where}: {SEAL}: is missing; {mend}")
    if not is_sealed(content):
        raise error(f"{where}: has changed since it was written (its sha256 differs); {mend}")


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Tell whether values have a seal, and are those that were sealed."""
    try:
        return content.get(SEAL) == seal_of(content)
    except (ValueError, TypeError):  # what JSON has not, such as NaN or a date in YAML
        return False


def sealed_text(text: str, header: str) -> str:
    """Return text below a comment and a line with its seal."""
    return f"# {header}\n{_LINE}{_hash(text.encode())}\n{text}"


def check_sealed_text(path: Path, header: str, *, mend: str) -> None:
    """Check that a file is what `sealed_text` made."""
    head, _, rest = read_bytes(path).partition(f"\n{_LINE}".encode())
    seal, _, text = rest.partition(b"\n")
    if head != f"# {header}".encode() or seal != _hash(text).encode():
        raise RunError(f"{path}: has changed since it was written; {mend}")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
