"""Read the documents of one local file, and say in which line a bad one is.

JSON lines (plain, .gz, .bz2, .xz or .zst), JSON arrays, CSV, text (a file is a document),
Parquet and Arrow. Files are read as streams, so stopping early costs nothing. Parquet, Arrow and
.zst are read in a child process (mixopt.corpus.text.child_reader): the libraries that decode them
may die of a damaged file.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mixopt.corpus.text.child_reader import read_in_child, sent
from mixopt.corpus.text.reader_input import Reading
from mixopt.errors import MixoptError
from mixopt.system import open_zst

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
BUILDERS: dict[str, str] = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
}
FOREIGN = frozenset({"parquet", "arrow"})  # builders whose libraries may die
_ROWS = 1_000
LONGEST_DOCUMENT = 1 << 28  # bytes of a line of JSON, or of a compressed text
_TOO_LONG = f"longer than {LONGEST_DOCUMENT >> 20} MiB"
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def builder_of(path: Path) -> str | None:
    """Return the builder that a file's suffix stands for: json, parquet, arrow, csv, text."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return BUILDERS.get(suffixes[-1]) if suffixes else None


def read_file(path: Path, builder: str, reading: Reading) -> Iterator[str]:
    """Give the documents of a file, in order.

    Args:
        path: The file.
        builder: json, parquet, arrow, csv or text.
        reading: Column and policy.

    Raises:
        CorpusError: The file is damaged, the column is missing, or a document is bad.
    """
    if builder in FOREIGN or path.suffix.lower() == ".zst":
        arguments = {"path": str(path), "builder": builder}
        yield from read_in_child(f"{__name__}:file_documents", path, arguments, reading)
    else:
        yield from read_here(path, builder, reading)


def file_documents(path: str, builder: str, **given: Any) -> Iterator[bytes]:
    """Read a file; runs in the child."""
    yield from sent(lambda reading: read_here(Path(path), builder, reading), **given)


def read_here(path: Path, builder: str, reading: Reading) -> Iterator[str]:
    """Give the documents of a file as `read_file`, in this process."""
    try:
        yield from _READERS[builder](path, reading)
    except MixoptError:
        raise
    except Exception as error:  # whatever a library raises on a damaged file
        reading.damaged(path, error)


def _json(path: Path, reading: Reading) -> Iterator[str]:
    with open_file(path) as stream:
        start = stream.readline(LONGEST_DOCUMENT)
        while start and not start.strip():
            start = stream.readline(LONGEST_DOCUMENT)
        if start.lstrip().startswith(b"["):
            yield from _json_array(path, start + _rest(stream, path), reading)
            return
    first = True
    with open_file(path) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if len(line) == LONGEST_DOCUMENT:
                reading.is_bad(f"{path}:{number}", _TOO_LONG)
            elif line.strip():
                document = _json_line(line, f"{path}:{number}", reading, first=first)
                if document is not None:
                    first = False
                    yield document


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Give the lines of a file; of one that is too long, its first LONGEST_DOCUMENT bytes."""
    while line := stream.readline(LONGEST_DOCUMENT):
        yield line
        while len(line) == LONGEST_DOCUMENT and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_DOCUMENT)


def _rest(stream: IO[bytes], path: Path) -> bytes:
    """Return the rest of a file; what is compressed may be far larger than its file.

    Raises:
        OSError: It is too large.
    """
    if path.suffix.lower() not in _COMPRESSED:
        return stream.read()
    content = stream.read(LONGEST_DOCUMENT + 1)
    if len(content) > LONGEST_DOCUMENT:
        raise OSError(_TOO_LONG)
    return content


def _json_line(line: bytes, where: str, reading: Reading, *, first: bool) -> str | None:
    try:
        row = json.loads(line.rstrip(b"\r\n").decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return reading.is_bad(where, f"invalid UTF-8 at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return reading.is_bad(where, f"broken JSON at column {error.colno}: {error.msg}")
    except RecursionError:
        return reading.is_bad(where, "broken JSON: nested too deeply")
    except ValueError as error:  # a number of thousands of digits
        return reading.is_bad(where, f"broken JSON: {error}".split(";", maxsplit=1)[0])
    return _field(row, where, reading, first=first)


def _json_array(path: Path, content: bytes, reading: Reading) -> Iterator[str]:
    try:
        rows = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return reading.lost(f"{path}:{line}", "invalid UTF-8 in a JSON array")
    except json.JSONDecodeError as error:
        return reading.lost(f"{path}:{error.lineno}", f"broken JSON: {error.msg}")
    except RecursionError:
        return reading.lost(path, "broken JSON: nested too deeply")
    except ValueError as error:  # a number of thousands of digits
        return reading.lost(path, f"broken JSON: {error}".split(";", maxsplit=1)[0])
    for number, row in enumerate(rows, start=1):
        document = _field(row, f"{path} (item {number})", reading, first=number == 1)
        if document is not None:
            yield document


def _field(row: Any, where: str, reading: Reading, *, first: bool) -> str | None:
    """Return the text of a row; without the column the first is a mistake, a later one is bad."""
    if not isinstance(row, dict):
        return reading.is_bad(where, f"a {type(row).__name__}, not an object with columns")
    if reading.column not in row and not first:
        return reading.is_bad(where, f"no column {reading.column!r}")
    reading.check_column(where, row)
    return reading.text(row[reading.column], where)


def _text(path: Path, reading: Reading) -> Iterator[str]:
    with open_file(path) as stream:
        content = _rest(stream, path)
    try:
        yield content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reading.is_bad(f"{path}:{line}", f"invalid UTF-8 at byte {error.start + 1}")


@contextmanager
def fields_of_any_length() -> Iterator[None]:
    """Let CSV fields be of any length while the block runs."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _csv(path: Path, reading: Reading) -> Iterator[str]:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    with open_file(path) as binary, fields_of_any_length():
        lines = io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.reader(lines, delimiter=delimiter)
        header = next(rows, [])
        reading.check_column(path, header)
        place = header.index(reading.column)
        for row in rows:
            value = row[place] if place < len(row) else None
            document = reading.text(value, f"{path}:{rows.line_num}")
            if document is not None and row:
                yield document


def _parquet(path: Path, reading: Reading) -> Iterator[str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        reading.check_column(path, file.schema_arrow.names)
        yield from read_batches(
            path, file.iter_batches(batch_size=_ROWS, columns=[reading.column]), reading
        )


def _arrow(path: Path, reading: Reading) -> Iterator[str]:
    with arrow_batches(path, reading) as batches:
        yield from read_batches(path, batches, reading)


@contextmanager
def arrow_batches(path: Path, reading: Reading) -> Iterator[Iterable[Any]]:
    """Open an Arrow file or stream that has the column of the text; give its batches."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        try:
            file = pa.ipc.open_stream(source)
            batches: Iterable[Any] = file
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(k) for k in range(file.num_record_batches))
        reading.check_column(path, file.schema.names)
        yield batches


def read_batches(path: object, batches: Iterable[Any], reading: Reading) -> Iterator[str]:
    """Give the documents of Arrow batches or tables that have the column.

    Raises:
        ValueError: A batch whose texts would lie outside it.
    """
    number = 0
    for batch in batches:
        column = batch.column(reading.column)
        _check_places(column)
        for value in column:
            number += 1
            document = _arrow_value(value, f"{path} (row {number})", reading)
            if document is not None:
                yield document


def _check_places(column: Any) -> None:
    """Check where the texts begin and end, but not that they are UTF-8: single ones may be bad."""
    import pyarrow as pa

    views = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for array in getattr(column, "chunks", [column]):
        view = views.get(array.type)
        (array if view is None else array.view(view)).validate(full=True)


def _arrow_value(value: Any, where: str, reading: Reading) -> str | None:
    try:
        return reading.text(value.as_py(), where)
    except UnicodeDecodeError as error:
        return reading.is_bad(where, f"invalid UTF-8 at byte {error.start + 1}")


def open_file(path: Path) -> IO[bytes]:
    """Open a file, decompressed where its suffix says how."""
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    suffix = path.suffix.lower()
    if suffix == ".zst":
        return open_zst(path)
    stream: IO[bytes] = openers.get(suffix, open)(path, "rb")
    return stream


_READERS: dict[str, Callable[[Path, Reading], Iterator[str]]] = {
    "json": _json,
    "text": _text,
    "csv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
}
