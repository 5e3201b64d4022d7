"""Read the offline log of a W&B run: `wandb/offline-run-*/run-*.wandb`.

The file is LevelDB's log behind seven bytes: blocks of 32 KiB, and in them pieces with checksum
(4 bytes), length (2) and kind (1: whole, 2: first, 3: middle, 4: last) of Record messages. The
history has a value under its key as JSON, or since 0.31 as a number. What the run's summary and
config say counts too.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.system import read_bytes
from mixopt_proxies.command.results.logged_values import OF_ITSELF, LoggedValues
from mixopt_proxies.command.results.wire_format import message_fields, real, texts_of

_MAGIC = b":W&B\xe1\xbe"
_HEADER, _BLOCK, _PIECE = 7, 1 << 15, 7
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Fields of Record, of its parts, and of their items.
_HISTORY, _SUMMARY, _CONFIG, _RUN = 2, 3, 5, 17
_RUN_CONFIG, _ITEM = 4, 1
_KEY, _NESTED, _INTEGER, _NUMBER, _JSON = 1, 2, 5, 6, 16


def read_wandb_file(path: Path) -> LoggedValues:
    """Read the history, the last summary and the configuration of a run.

    Raises:
        RunError: The file is damaged, or none of W&B's.
    """
    found, summary = LoggedValues(), dict[str, Any]()
    try:
        for record in _records(read_bytes(path, error=RunError)):
            for kind, part in message_fields(record):
                if not isinstance(part, bytes):
                    continue
                if kind == _HISTORY:
                    found.add_row(_items(part))
                elif kind == _SUMMARY:
                    summary |= _items(part)
                elif kind in (_CONFIG, _RUN):
                    found.said.update(_said(part, whole=kind == _CONFIG))
    except (ValueError, struct.error) as error:
        raise RunError(f"{path}: is not a file of a W&B run: {error}") from error
    for name, value in summary.items():  # `run.summary[name] = value` is in no history
        if name not in found.series:
            found.add_value(name, value, None, None)
    return found


def _records(content: bytes) -> Iterator[bytes]:
    if not content.startswith(_MAGIC):
        raise ValueError("it does not begin as one")
    place, begun = _HEADER, b""
    while place + _PIECE <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _PIECE:  # the rest of a block is empty
            place += left
            continue
        check, length, kind = struct.unpack_from("<IHB", content, place)
        piece = content[place + _PIECE : place + _PIECE + length]
        if len(piece) < length:
            return  # it was not written to its end
        if check != zlib.crc32(content[place + 6 : place + _PIECE] + piece):
            raise ValueError(f"the checksum at byte {place} is wrong")
        place += _PIECE + length
        begun = piece if kind in (_WHOLE, _FIRST) else begun + piece
        if kind in (_WHOLE, _LAST):
            yield begun


def _items(part: bytes) -> dict[str, Any]:
    """Return the values of a piece of history or of a summary, by name."""
    items = (item for number, item in message_fields(part) if number == _ITEM)
    return dict(_item(item) for item in items if isinstance(item, bytes))


def _item(item: bytes) -> tuple[str, Any]:
    """Return the name and the value of an item; a nested name is joined by dots."""
    nested = texts_of(item, _NESTED)
    name, value = ".".join(nested or texts_of(item, _KEY)), None
    for number, field in message_fields(item):
        if number == _JSON and isinstance(field, bytes):
            value = json.loads(field)
        elif number == _NUMBER:
            value = real(field)
        elif number == _INTEGER and isinstance(field, int):
            value = (field >> 1) ^ -(field & 1)
    return name, value


def _said(part: bytes, *, whole: bool) -> dict[str, Any]:
    """Return what a configuration says of the run."""
    parts = [part] if whole else [p for n, p in message_fields(part) if n == _RUN_CONFIG]
    values: dict[str, Any] = {}
    for config in parts:
        values |= _items(config) if isinstance(config, bytes) else {}
    return {name: value for name, value in values.items() if name in OF_ITSELF}
