"""Read the rows of one file: JSON, CSV, text (a file is a document), Parquet or Arrow.

All files, including compressed ones (.gz, .bz2, .xz, .zst), are read as streams, so stopping early
costs nothing. An unreadable row is returned with its place and the reason; an unreadable file
raises the library's error, which `ReaderContext.documents` turns into one line.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from operator import truediv
from pathlib import Path
from typing import IO, Any, NamedTuple

from mixopt.corpus.reader_context import ReaderContext, Row, Values, unreadable_text
from mixopt.errors import CorpusError

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
BUILDERS: dict[str, str] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    ".parquet": "parquet",
    ".arrow": "arrow",
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".txt", ".text", ".md", ".rst"), "text"),
}
LONGEST_DOCUMENT = 1 << 28  # bytes of a line of JSON, or of a compressed text
_TOO_LONG = f"longer than {LONGEST_DOCUMENT >> 20} MiB"
_PIECE_BYTES = 1 << 12  # of a compressed file, read at once
_BATCH_ROWS = 1_000  # of Parquet in memory
_SLICE_ROWS = 100  # converted to Python values at once
# First bytes of compressed files, and their suffixes.
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_FIRST_ROWS = 200  # rows that determine the columns of a file
_LONGEST_VALUE = 2_000  # characters kept of a value in the first rows
_HEAD_BYTES = 4_000_000  # of plain text in the first rows


def builder_of(path: Path) -> str | None:
    """Return the builder of a file's suffix: json, parquet, arrow, csv, text; None: unknown."""
    name = Path(path.name.lower())
    if name.suffix in COMPRESSIONS:
        name = name.with_suffix("")
    return BUILDERS.get(name.suffix)


class _Pieces(io.RawIOBase):
    """A file read in small pieces, so that its position shows how much was needed."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = _PIECE_BYTES
        return self._raw.read(min(size, _PIECE_BYTES))


def _decompressed(raw: IO[bytes], path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix not in COMPRESSIONS:
        return raw
    pieces: Any = _Pieces(raw)
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pieces, "zstd"), 4 * _PIECE_BYTES)
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opened: IO[bytes] = openers[suffix](pieces)
    return opened


class RowFile:
    """The rows of a file, read once; `name` is for messages, `names` are its stated columns.

    `share` returns the approximate share of the file read so far.
    """

    def __init__(
        self,
        path: Path,
        builder: str,
        reading: ReaderContext | None = None,
        name: str | None = None,
    ) -> None:
        """Store the path; read nothing."""
        self.path = path
        self.builder = builder
        self.name = name or str(path)
        self.columns = None if reading is None else reading.columns
        self.names: Sequence[str] | None = None
        self.share: Callable[[], float] = lambda: 0.0
        self._reading = reading

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows in order; check the columns of the first readable row."""
        reading = self._reading
        for row in _READERS[self.builder](self):
            if reading is not None and row.values is not None:
                where = row.where if self.names is None else self.name
                reading.check_columns(where, self.names or row.values)
                reading = None
            yield row

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Open the file, decompressed."""
        with self.path.open("rb") as raw, _decompressed(raw, self.path) as stream:
            if stream is raw:
                self._check_uncompressed(raw.peek(6))
            size = max(self.path.stat().st_size, 1)
            self.share = lambda: raw.tell() / size
            yield stream
        self.share = lambda: 1.0

    def _check_uncompressed(self, head: bytes) -> None:
        for magic, suffix in _MAGIC.items():
            if head.startswith(magic):
                raise ValueError(f"is compressed; rename it to {self.path.name}{suffix}")

    def rest(self, stream: IO[bytes]) -> bytes:
        """Return the rest of the file; limit decompressed content, which may be far larger."""
        if self.path.suffix.lower() not in COMPRESSIONS:
            return stream.read()
        content = stream.read(LONGEST_DOCUMENT + 1)
        if len(content) > LONGEST_DOCUMENT:
            raise ValueError(_TOO_LONG)
        return content

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Store the columns of the file, and return those to read."""
        self.names = names
        return [name for name in names if self.columns is None or name in self.columns]

    def rows_of(self, batches: Iterable[Any], share: Callable[[float], float]) -> Iterator[Row]:
        """Yield the rows of Arrow batches; `share` maps bytes of them to a share of the file."""
        number = 0
        size = 0.0
        self.share = lambda: share(size)
        for batch in batches:
            _check_offsets(batch)
            for start in range(0, batch.num_rows, _SLICE_ROWS):
                part = batch.slice(start, _SLICE_ROWS)
                for values, fault in rows_of(part):
                    number += 1
                    size += part.nbytes / part.num_rows
                    yield Row(f"{self.name} (row {number})", values, fault)


class FirstRows(NamedTuple):
    """The first rows of a file, and the number of broken ones among them."""

    rows: tuple[Values, ...]
    broken: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the file."""
        return tuple(dict.fromkeys(chain.from_iterable(self.rows)))

    def texts(self, column: str) -> list[str]:
        """Return the values of a column that are text."""
        return [row[column] for row in self.rows if isinstance(row.get(column), str)]


def first_rows(path: Path, builder: str) -> FirstRows:
    """Return the first rows of a file, with short values."""
    file = RowFile(path, builder)
    try:
        rows = _first_text(file) if builder == "text" else list(islice(file, _FIRST_ROWS))
    except CorpusError:
        raise
    except Exception as error:  # libraries raise any type on a damaged file
        raise CorpusError(unreadable_text(error)) from error
    readable = [_shortened(row.values) for row in rows if row.values is not None]
    return FirstRows(tuple(readable), len(rows) - len(readable))


def _first_text(file: RowFile) -> list[Row]:
    """Return the beginning of a text file as one row; none if the file is empty."""
    with file.opened() as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        return []
    if b"\0" in head:
        raise CorpusError("is binary, not text")
    return [Row("", {"text": head.decode(errors="replace")})]


def _shortened(values: Values) -> Values:
    return {str(name): _short_value(value) for name, value in values.items()}


def _short_value(value: object) -> object:
    """Truncate text, keep plain values, and replace all other values by {}."""
    if isinstance(value, str):
        return value[:_LONGEST_VALUE].encode(errors="replace").decode()
    if value is None or isinstance(value, (int, float)):
        return value
    return {}


class _Parsed(NamedTuple):
    """A value of JSON and its place, or the reason that it cannot be parsed."""

    value: Any
    where: str
    fault: str = ""


def _json(file: RowFile) -> Iterator[Row]:
    """Read one object per line, or one array of objects."""
    is_first = True
    with file.opened() as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if not line.strip():
                continue
            if is_first and line.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
                array = _parse_json(line + file.rest(stream), file.name, number)
                yield from _items(file, array)
                return
            is_first = False
            if len(line) == LONGEST_DOCUMENT:
                yield Row(f"{file.name}:{number}", None, _TOO_LONG)
            else:
                yield _object(_parse_json(line.rstrip(b"\r\n"), file.name, number))


def _items(file: RowFile, array: _Parsed) -> Iterator[Row]:
    """Yield the objects of an array."""
    if array.fault:
        yield Row(array.where, None, array.fault)
        return
    for place, item in enumerate(array.value, start=1):
        file.share = partial(truediv, place, len(array.value))
        yield _object(_Parsed(item, f"{file.name} (item {place})"))


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file; truncate long ones to LONGEST_DOCUMENT bytes."""
    while line := stream.readline(LONGEST_DOCUMENT):
        yield line
        while len(line) == LONGEST_DOCUMENT and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_DOCUMENT)


def _parse_json(content: bytes, name: str, line: int) -> _Parsed:
    """Parse JSON that begins at a line."""
    try:
        return _Parsed(json.loads(content.decode("utf-8-sig")), f"{name}:{line}")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line += before.count(b"\n")
        place = error.start - before.rfind(b"\n")
        fault = f"invalid UTF-8 at byte {place}"
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        fault = f"broken JSON at column {error.colno}: {error.msg}"
    except RecursionError:
        fault = "broken JSON: nested too deeply"
    except ValueError as error:  # a number of thousands of digits
        fault = f"broken JSON: {error}".split(";", maxsplit=1)[0]
    return _Parsed(None, f"{name}:{line}", fault)


def _object(parsed: _Parsed) -> Row:
    value = parsed.value
    if isinstance(value, dict):
        return Row(parsed.where, value)
    not_object = f"a {type(value).__name__}, not an object with columns"
    return Row(parsed.where, None, parsed.fault or not_object)


def _text(file: RowFile) -> Iterator[Row]:
    with file.opened() as stream:
        content = file.rest(stream)
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        yield Row(file.name, dict.fromkeys(file.columns or ["text"], text))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield Row(f"{file.name}:{line}", None, f"invalid UTF-8 at byte {error.start + 1}")


def _csv(file: RowFile) -> Iterator[Row]:
    limit = csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if ".tsv" in file.path.suffixes else ","
    try:
        with file.opened() as binary:
            lines = io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="")
            rows = csv.DictReader(lines, delimiter=delimiter)
            file.names = rows.fieldnames
            for row in rows:
                row.pop(None, None)  # values beyond the last column
                yield Row(f"{file.name}:{rows.line_num}", row)
    finally:
        csv.field_size_limit(limit)


def _parquet(file: RowFile) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file.path) as parquet:
        chosen = file.chosen(parquet.schema_arrow.names)
        total = _uncompressed_bytes(parquet.metadata, chosen)
        batches = parquet.iter_batches(batch_size=_BATCH_ROWS, columns=chosen)
        yield from file.rows_of(batches, lambda size: size / max(total, 1))


def _uncompressed_bytes(metadata: Any, chosen: Sequence[str]) -> int:
    """Return the size of the chosen columns of a Parquet file."""
    size = 0
    for k in range(metadata.num_row_groups):
        group = metadata.row_group(k)
        for c in range(group.num_columns):
            column = group.column(c)
            if column.path_in_schema in chosen:
                size += column.total_uncompressed_size
    return size


def _arrow(file: RowFile) -> Iterator[Row]:
    import pyarrow as pa

    with pa.memory_map(str(file.path)) as source:
        try:
            stream = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            rows = _arrow_file(file, pa.ipc.open_file(source))
        else:
            rows = _arrow_stream(file, stream, source)
        yield from rows


def _arrow_file(file: RowFile, reader: Any) -> Iterator[Row]:
    chosen = file.chosen(reader.schema.names)
    batches = [reader.get_batch(k).select(chosen) for k in range(reader.num_record_batches)]
    total = sum(batch.nbytes for batch in batches)
    return file.rows_of(batches, lambda size: size / max(total, 1))


def _arrow_stream(file: RowFile, reader: Any, source: Any) -> Iterator[Row]:
    chosen = file.chosen(reader.schema.names)
    read = 0

    def batches() -> Iterator[Any]:
        nonlocal read
        for batch in reader:
            part = batch.select(chosen)
            read += part.nbytes
            yield part

    def share(size: float) -> float:
        """Return the share of the total, which is estimated from the bytes read so far."""
        total: float = read * source.size() / source.tell()
        return size / max(total, 1)

    return file.rows_of(batches(), share)


def _check_offsets(batch: Any) -> None:
    """Check the offsets of texts, but not UTF-8, since single texts may be bad."""
    import pyarrow as pa

    views = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for array in batch.columns:
        view = views.get(array.type)
        checked = array if view is None else array.view(view)
        checked.validate(full=True)


def rows_of(part: Any) -> Iterator[tuple[Values | None, str]]:
    """Yield the rows of a batch; a row with invalid UTF-8 does not affect the others."""
    try:
        rows = part.to_pylist()
    except UnicodeDecodeError:
        for place in range(part.num_rows):
            try:
                yield part.slice(place, 1).to_pylist()[0], ""
            except UnicodeDecodeError as error:
                yield None, f"invalid UTF-8 at byte {error.start + 1}"
    else:
        for row in rows:
            yield row, ""


_READERS: dict[str, Callable[[RowFile], Iterator[Row]]] = {
    "json": _json,
    "csv": _csv,
    "text": _text,
    "parquet": _parquet,
    "arrow": _arrow,
}
