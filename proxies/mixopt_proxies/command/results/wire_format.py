"""Read fields of a protobuf message without its classes: numbers, text and inner messages.

TensorBoard and W&B keep what was logged as such messages. Of each we need a few fields, whose
numbers never change (protobuf's rule of compatibility), while the classes come with libraries of
tens of megabytes that a worker may not have, and W&B's has had no reader for Python since 0.31.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

Field = int | bytes
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def message_fields(message: bytes) -> Iterator[tuple[int, Field]]:
    """Yield a message's fields in order: number and value.

    A value is a whole number, or the bytes of a text, an inner message, a float (4) or a double
    (8).

    Raises:
        ValueError: The message is cut off, or none.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if place + size > len(message):
            raise ValueError("a field is cut off")
        yield number, message[place : place + size]
        place += size


def texts_of(message: bytes, number: int) -> list[str]:
    """Return the texts that a message has as one of its fields."""
    values = (value for own, value in message_fields(message) if own == number)
    return [value.decode("utf-8", "replace") for value in values if isinstance(value, bytes)]


def real(value: Field) -> float:
    """Return a field that is a float or a double."""
    if isinstance(value, bytes) and len(value) in (4, 8):
        return float(struct.unpack("<f" if len(value) == 4 else "<d", value)[0])
    raise ValueError("expected a float")


def signed(value: int) -> int:
    """Return a field of kind int64, which keeps negative numbers as large ones."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("a number is cut off")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, place
    raise ValueError("a number of more than ten bytes")
