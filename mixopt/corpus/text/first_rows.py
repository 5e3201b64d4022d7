"""The rows of a file of documents with all their columns: the first ones, or two columns of all.

`mixopt init` sees by them which column is text, and splits rows by their source. Parquet, Arrow
and .zst are read in a child process, as their documents are (mixopt.corpus.text.readers).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mixopt.corpus.text.readers import (
    FOREIGN,
    LONGEST_DOCUMENT,
    fields_of_any_length,
    open_file,
)
from mixopt.errors import CorpusError
from mixopt.system import in_child

Row = Mapping[str, Any]
ROWS = 200  # that are looked at
LONGEST = 2_000  # characters of a value that are kept
HEAD = 4_000_000  # bytes of plain text that are looked at
BROKEN = b"!"  # stands for a row that cannot be read


@dataclass(frozen=True)
class FirstRows:
    """The beginning of a file.

    Attributes:
        rows: Values by column; of plain text one row with the column `text`.
        broken: How many rows cannot be read.
    """

    rows: tuple[Row, ...]
    broken: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the file."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def texts(self, column: str) -> list[str]:
        """Return the values of a column that are text."""
        values = (row.get(column) for row in self.rows)
        return [value for value in values if isinstance(value, str)]


def first_rows(path: Path, builder: str) -> FirstRows:
    """Return the first rows of a file.

    Args:
        path: The file.
        builder: json, parquet, arrow, csv or text.

    Raises:
        CorpusError: It cannot be read, with the reason in a few words.
    """
    found = list(_items("sent_rows", path, {"builder": builder}))
    rows = tuple(json.loads(item) for item in found if item != BROKEN)
    return FirstRows(rows, found.count(BROKEN))


def column_pairs(path: Path, builder: str, first: str, second: str) -> Iterator[tuple[str, str]]:
    """Give the values of two columns, of each row in which both are text.

    Args:
        path: The file.
        builder: json, parquet, arrow or csv.
        first: A column.
        second: Another.

    Raises:
        CorpusError: The file cannot be read, with its name.
    """
    given = {"builder": builder, "first": first, "second": second}
    try:
        for item in _items("sent_pairs", path, given):
            one, other = json.loads(item)
            yield one, other
    except CorpusError as error:
        raise CorpusError(f"{path}: {error}") from error


def _items(function: str, path: Path, given: Mapping[str, str]) -> Iterator[bytes]:
    """Call a generator of this module, in a child where a library might die of the file."""
    arguments = {"path": str(path), **given}
    try:
        if given["builder"] in FOREIGN or path.suffix.lower() == ".zst":
            yield from in_child(f"{__name__}:{function}", arguments, died=_died)
        else:
            yield from _SENT[function](**arguments)
    except CorpusError:
        raise
    except Exception as error:  # whatever a library raises on a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CorpusError(f"cannot be read: {reason}") from error


def sent_rows(path: str, builder: str) -> Iterator[bytes]:
    """Give the first rows as JSON, and BROKEN for one that cannot be read."""
    for row in islice(_READERS[builder](Path(path)), ROWS):
        short = None if row is None else {str(name): _cut(value) for name, value in row.items()}
        yield BROKEN if short is None else json.dumps(short).encode()


def sent_pairs(path: str, builder: str, first: str, second: str) -> Iterator[bytes]:
    """Give two columns of all rows as JSON."""
    for row in _READERS[builder](Path(path)):
        pair = [None, None] if row is None else [row.get(first), row.get(second)]
        if all(isinstance(value, str) for value in pair):
            yield json.dumps(pair).encode()


_SENT: dict[str, Callable[..., Iterator[bytes]]] = {
    "sent_rows": sent_rows,
    "sent_pairs": sent_pairs,
}


def _died(how: str) -> CorpusError:
    return CorpusError(f"cannot be read: the reader {how}")


def _cut(value: object) -> object:
    """Return a value that is short: text as text, and of anything else its kind."""
    if isinstance(value, str):
        return value[:LONGEST].encode(errors="replace").decode()
    return value if isinstance(value, (int, float, bool)) or value is None else {}


def _json(path: Path) -> Iterator[Row | None]:
    with open_file(path) as stream:
        start = stream.readline(LONGEST_DOCUMENT)
        if start.lstrip().startswith(b"["):
            rows = json.loads(start + stream.read(LONGEST_DOCUMENT))
            yield from (row if isinstance(row, dict) else None for row in rows)
            return
        while start:
            if start.strip():
                yield _object(start)
            start = stream.readline(LONGEST_DOCUMENT)


def _object(line: bytes) -> Row | None:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _csv(path: Path) -> Iterator[Row | None]:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    with open_file(path) as binary, fields_of_any_length():
        lines = io.TextIOWrapper(binary, "utf-8-sig", errors="replace", newline="")
        for row in csv.DictReader(lines, delimiter=delimiter):
            yield {name: value for name, value in row.items() if name is not None}


def _text(path: Path) -> Iterator[Row | None]:
    with open_file(path) as stream:
        head = stream.read(HEAD)
    if b"\0" in head:
        raise CorpusError("is binary, not text")
    if head:
        yield {"text": head.decode(errors="replace")}


def _parquet(path: Path) -> Iterator[Row | None]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield from _of_batches(file.iter_batches(batch_size=ROWS))


def _arrow(path: Path) -> Iterator[Row | None]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        try:
            batches: Iterable[Any] = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(k) for k in range(file.num_record_batches))
        yield from _of_batches(batches)


def _of_batches(batches: Iterable[Any]) -> Iterator[Row]:
    for batch in batches:
        batch.validate(full=True)
        for start in range(0, batch.num_rows, ROWS):
            yield from batch.slice(start, ROWS).to_pylist()


_READERS: dict[str, Callable[[Path], Iterator[Row | None]]] = {
    "json": _json,
    "csv": _csv,
    "text": _text,
    "parquet": _parquet,
    "arrow": _arrow,
}
