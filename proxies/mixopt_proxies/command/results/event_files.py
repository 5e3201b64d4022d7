"""Read scalars from TensorBoard's event files, whoever wrote them (torch, TensorFlow, JAX).

A file is records: length (8 bytes), its checksum (4), an Event message, its checksum (4). A last
record that was not written to its end is left out, as TensorBoard does. Scalars are of both forms:
`simple_value`, which torch writes, and a tensor, which TensorFlow 2 and JAX write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from mixopt.errors import RunError
from mixopt.system import read_bytes
from mixopt_proxies.command.results.logged_values import LoggedPoint, LoggedValues
from mixopt_proxies.command.results.wire_format import Field, message_fields, real, signed

MARK = ".tfevents."
_HEADER, _FOOTER = 12, 4
_CHECKED = 1 << 16  # bytes of a record whose checksum is compared; scalars are far smaller
# Fields of Event, Summary.Value and TensorProto.
_STEP, _SUMMARY, _VALUE = 2, 5, 1
_TAG, _SIMPLE, _TENSOR = 1, 2, 8
_KIND, _CONTENT, _FLOATS, _DOUBLES = 1, 4, 5, 6
_FORMATS = {1: "<f", 2: "<d"}  # of TensorProto's kinds


def read_event_file(path: Path, prefix: str = "") -> LoggedValues:
    """Read the scalars of one file.

    Args:
        path: The file.
        prefix: What their names begin with, such as the folder that TensorBoard takes for a run.

    Raises:
        RunError: The file is damaged.
    """
    found = LoggedValues()
    try:
        for event in _records(read_bytes(path, error=RunError)):
            for tag, step, value in _scalars(event):
                found.series.setdefault(prefix + tag, []).append(LoggedPoint(value, step))
    except (ValueError, struct.error) as error:
        raise RunError(f"{path}: is not an event file of TensorBoard: {error}") from error
    return found


def _records(content: bytes) -> Iterator[bytes]:
    place = 0
    while place + _HEADER <= len(content):
        length, check = struct.unpack_from("<QI", content, place)
        if check != _masked(content[place : place + 8]):
            raise ValueError(f"the checksum at byte {place} is wrong")
        start, place = place + _HEADER, place + _HEADER + length + _FOOTER
        if place > len(content):
            return  # it was not written to its end
        record = content[start : start + length]
        (check,) = struct.unpack_from("<I", content, start + length)
        if length <= _CHECKED and check != _masked(record):
            raise ValueError(f"the checksum of the record at byte {start} is wrong")
        yield record


def _scalars(event: bytes) -> Iterator[tuple[str, int, float]]:
    """Yield the name, the step and the value of each scalar of an event."""
    step, summaries = 0, []
    for number, value in message_fields(event):
        if number == _STEP and isinstance(value, int):
            step = signed(value)
        elif number == _SUMMARY and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, entry in message_fields(summary):
            if number == _VALUE and isinstance(entry, bytes):
                tag, scalar = _named(entry)
                if scalar is not None:
                    yield tag, step, scalar


def _named(entry: bytes) -> tuple[str, float | None]:
    fields = dict(message_fields(entry))
    tag = fields.get(_TAG, b"")
    name = tag.decode("utf-8", "replace") if isinstance(tag, bytes) else ""
    if _SIMPLE in fields:
        return name, real(fields[_SIMPLE])
    return name, _of_tensor(fields.get(_TENSOR))


def _of_tensor(tensor: Field | None) -> float | None:
    """Return the one number of a tensor of floats; None where it is something else."""
    if not isinstance(tensor, bytes):
        return None
    fields = dict(message_fields(tensor))
    kind = fields.get(_KIND)
    form = _FORMATS.get(kind) if isinstance(kind, int) else None
    if form is None:
        return None
    for number in (_CONTENT, _FLOATS, _DOUBLES):
        value = fields.get(number)
        if isinstance(value, bytes) and len(value) == struct.calcsize(form):
            return float(struct.unpack(form, value)[0])
    return None


def _masked(data: bytes) -> int:
    """Return the checksum of a record: CRC-32C, rotated, plus a constant."""
    crc, table = 0xFFFFFFFF, _table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@lru_cache(maxsize=1)
def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
