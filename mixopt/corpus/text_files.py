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
from itertools import islice
from operator import truediv
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from mixopt.config import SourceConfig
from mixopt.errors import CorpusError, MixoptError
from mixopt.system import PlainMapping, first_few, one_line

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
_PIECE = 1 << 12  # bytes of a compressed file, read at once
_BATCH = 1_000  # rows of Parquet in memory
_SLICE = 100  # rows converted to Python values at once
# First bytes of compressed files, and their suffixes.
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_FIRST_ROWS = 200  # rows that determine the columns of a file
_LONGEST_VALUE = 2_000  # characters kept of a value in the first rows
_HEAD = 4_000_000  # bytes of plain text in the first rows
_MAX_COLUMNS = 20  # names listed in a message

BadPolicy = Literal["error", "skip"]
Values = PlainMapping


class Document(NamedTuple):
    """Text, and the group that must stay on one side of a split (itself if omitted)."""

    text: str
    group: str | None = None


class Row(NamedTuple):
    """A row: its place, and its values by column, or the reason that it is unreadable."""

    where: str
    values: Values | None
    fault: str = ""


class ReaderContext:
    """Turns rows into the documents of a domain; skips and counts unreadable ones, or raises."""

    def __init__(self, domain: str, source: SourceConfig, on_bad: BadPolicy = "error") -> None:
        """Store the text column and the cell values of a source."""
        self.domain, self.column, self.cell = domain, source.column, source.cell
        self.bad, self.first_bad = 0, ""
        self._on_bad = on_bad

    @property
    def columns(self) -> list[str]:
        """Columns to read: the text, and those that select the rows of the domain."""
        return [self.column, *self.cell]

    def documents(self, rows: Iterable[Row], name: object) -> Iterator[str]:
        """Yield the documents of a file or data set, in order."""
        try:
            for where, values, fault in rows:
                text, error_text = (None, fault) if values is None else self._text(values)
                if error_text:
                    self._add_bad(f"domain {self.domain!r}: {where}: {error_text}")
                elif text is not None:
                    yield text
        except MixoptError:
            raise
        except Exception as error:  # libraries raise any type on a damaged file
            if isinstance(error, OSError) and error.errno is not None:
                raise self.unreadable(name, error) from error
            self._add_bad(str(self.unreadable(name, error)))

    def check_columns(self, where: object, columns: Iterable[str]) -> None:
        """Check that the columns of the text and of the cell exist."""
        names = list(map(str, columns))
        for name in self.cell.keys() - set(names):
            raise CorpusError(f"domain {self.domain!r}: {where}: by: no column {name!r}")
        if self.column not in names:
            listed = sorted(name if name.isprintable() else repr(name) for name in names)
            raise CorpusError(
                f"domain {self.domain!r}: {where}: no column {self.column!r}; set"
                f" 'column' to one of: {first_few([n[:80] for n in listed], _MAX_COLUMNS)}"
            )

    def unreadable(self, where: object, error: BaseException) -> CorpusError:
        """Return the error for a source that cannot be read completely."""
        return CorpusError(f"domain {self.domain!r}: {where}: {_reason(error)}")

    def _add_bad(self, message: str) -> None:
        if self._on_bad == "error":
            raise CorpusError(f"{message}; fix it, or set on_bad_document: skip")
        self.bad += 1
        self.first_bad = self.first_bad or message

    def _text(self, values: Values) -> tuple[str | None, str]:
        """Return the text of a row (None for rows of other domains), and an error text."""
        for name, expected in self.cell.items():
            value = values.get(name)
            if value is None or not str(value).strip():
                return None, f"column {name!r} has no value, so its domain is unknown"
            if str(value) != expected:
                return None, ""
        value = values.get(self.column)
        if not isinstance(value, str):
            if self.column not in values:
                return None, f"no column {self.column!r}"
            kind = "null" if value is None else type(value).__name__
            number = f" '{value}'" if isinstance(value, (int, float)) else ""
            return None, f"column {self.column!r} is {kind}{number}, not text"
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return None, f"invalid UTF-8 at character {error.start + 1}"
        return value, ""


def _reason(error: BaseException) -> str:
    return f"cannot be read: {one_line(error)}"


def builder_of(path: Path) -> str | None:
    """Return the builder of a file's suffix: json, parquet, arrow, csv, text; None: unknown."""
    name = path.name.lower()
    ending = next((suffix for suffix in COMPRESSIONS if name.endswith(suffix)), "")
    return BUILDERS.get(Path(name.removesuffix(ending)).suffix)


class _Pieces(io.RawIOBase):
    """A file read in small pieces, so that its position shows how much was needed."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(_PIECE if size < 0 else min(size, _PIECE))


def _decompressed(raw: IO[bytes], path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix not in COMPRESSIONS:
        return raw
    pieces: Any = _Pieces(raw)
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pieces, "zstd"), 4 * _PIECE)
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
        self.path, self.builder, self.name = path, builder, name or str(path)
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
            packed = [end for magic, end in _MAGIC.items() if raw.peek(6).startswith(magic)]
            if packed and stream is raw:
                raise ValueError(f"is compressed; rename it to {self.path.name}{packed[0]}")
            size = max(self.path.stat().st_size, 1)
            self.share = lambda: raw.tell() / size
            yield stream
        self.share = lambda: 1.0

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
        number, size = 0, 0.0
        self.share = lambda: share(size)
        for batch in batches:
            _check_places(batch)
            for start in range(0, batch.num_rows, _SLICE):
                part = batch.slice(start, _SLICE)
                for row in rows_of(part):
                    number, size = number + 1, size + part.nbytes / part.num_rows
                    yield Row(f"{self.name} (row {number})", *row)


class FirstRows(NamedTuple):
    """The first rows of a file, and the number of broken ones among them."""

    rows: tuple[Values, ...]
    broken: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the file."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def texts(self, column: str) -> list[str]:
        """Return the values of a column that are text."""
        return [row[column] for row in self.rows if isinstance(row.get(column), str)]


def first_rows(path: Path, builder: str) -> FirstRows:
    """Return the first rows of a file, with short values."""
    file = RowFile(path, builder)
    try:
        if builder == "text":
            with file.opened() as stream:
                head = stream.read(_HEAD)
            if b"\0" in head:
                raise CorpusError("is binary, not text")
            rows = [Row("", {"text": head.decode(errors="replace")})] if head else []
        else:
            rows = list(islice(file, _FIRST_ROWS))
    except CorpusError:
        raise
    except Exception as error:  # libraries raise any type on a damaged file
        raise CorpusError(_reason(error)) from error
    readable = [
        {str(name): _short(value) for name, value in row.values.items()}
        for row in rows
        if row.values is not None
    ]
    return FirstRows(tuple(readable), len(rows) - len(readable))


def _short(value: object) -> object:
    """Truncate text, keep plain values, and replace all other values by {}."""
    if isinstance(value, str):
        return value[:_LONGEST_VALUE].encode(errors="replace").decode()
    return value if isinstance(value, (int, float)) or value is None else {}


def _json(file: RowFile) -> Iterator[Row]:
    """Read one object per line, or one array of objects."""
    is_first = True
    with file.opened() as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if not line.strip():
                continue
            if is_first and line.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
                yield from _items(file, *_parse_json(line + file.rest(stream), file.name, number))
                return
            is_first = False
            if len(line) == LONGEST_DOCUMENT:
                yield Row(f"{file.name}:{number}", None, _TOO_LONG)
            else:
                yield _object(*_parse_json(line.rstrip(b"\r\n"), file.name, number))


def _items(file: RowFile, items: Any, where: str, fault: str) -> Iterator[Row]:
    """Yield the objects of an array."""
    if fault:
        yield Row(where, None, fault)
    for place, item in enumerate(items or (), start=1):
        file.share = partial(truediv, place, len(items))
        yield _object(item, f"{file.name} (item {place})")


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file; truncate long ones to LONGEST_DOCUMENT bytes."""
    while line := stream.readline(LONGEST_DOCUMENT):
        yield line
        while len(line) == LONGEST_DOCUMENT and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_DOCUMENT)


def _parse_json(content: bytes, name: str, line: int) -> tuple[Any, str, str]:
    """Parse JSON that begins at a line; return the value, its place and an error text."""
    try:
        return json.loads(content.decode("utf-8-sig")), f"{name}:{line}", ""
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
    return None, f"{name}:{line}", fault


def _object(value: object, where: str, fault: str = "") -> Row:
    if isinstance(value, dict):
        return Row(where, value)
    return Row(where, None, fault or f"a {type(value).__name__}, not an object with columns")


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
    try:
        with file.opened() as binary:
            lines = io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="")
            rows = csv.DictReader(lines, delimiter="\t" if ".tsv" in file.path.suffixes else ",")
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
        groups = [parquet.metadata.row_group(k) for k in range(parquet.num_row_groups)]
        columns = [group.column(k) for group in groups for k in range(group.num_columns)]
        sizes = [c.total_uncompressed_size for c in columns if c.path_in_schema in chosen]
        batches = parquet.iter_batches(batch_size=_BATCH, columns=chosen)
        yield from file.rows_of(batches, lambda size: size / max(sum(sizes), 1))


def _arrow(file: RowFile) -> Iterator[Row]:
    import pyarrow as pa

    with pa.memory_map(str(file.path)) as source:
        try:
            stream = pa.ipc.open_stream(source)
            batches: Iterable[Any] = stream
        except pa.ArrowInvalid:
            stream = pa.ipc.open_file(source)
            batches = [stream.get_batch(k) for k in range(stream.num_record_batches)]
        chosen = file.chosen(stream.schema.names)
        is_list, read = isinstance(batches, list), 0
        total = sum(batch.select(chosen).nbytes for batch in batches) if is_list else 0

        def parts() -> Iterator[Any]:
            nonlocal read
            for batch in batches:
                part = batch.select(chosen)
                read += part.nbytes
                yield part

        def share(size: float) -> float:
            """Return the share of all batches; for a stream, of the total estimated so far."""
            total_bytes = total if is_list else read * source.size() / source.tell()
            return size / max(total_bytes, 1)

        yield from file.rows_of(parts(), share)


def _check_places(batch: Any) -> None:
    """Check the offsets of texts, but not UTF-8, since single texts may be bad."""
    import pyarrow as pa

    views = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for array in batch.columns:
        view = views.get(array.type)
        (array if view is None else array.view(view)).validate(full=True)


def rows_of(part: Any) -> Iterator[tuple[Values | None, str]]:
    """Yield the rows of a batch; a row with invalid UTF-8 does not affect the others."""
    try:
        yield from ((row, "") for row in part.to_pylist())
    except UnicodeDecodeError:
        for place in range(part.num_rows):
            try:
                yield part.slice(place, 1).to_pylist()[0], ""
            except UnicodeDecodeError as error:
                yield None, f"invalid UTF-8 at byte {error.start + 1}"


_READERS: dict[str, Callable[[RowFile], Iterator[Row]]] = {
    "json": _json,
    "csv": _csv,
    "text": _text,
    "parquet": _parquet,
    "arrow": _arrow,
}
