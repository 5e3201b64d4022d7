"""Read the rows of one file: JSON, CSV, text (a file is a document), Parquet or Arrow.

Compressed files (.gz, .bz2, .xz, .zst) and all others are read as streams, so stopping early costs
nothing. A row that cannot be read is given with its place and the reason; what is damaged as a
whole raises whatever the library raises, which `documents` turns into one line.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from mixopt.errors import CorpusError, MixoptError

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
LONGEST_DOCUMENT = 1 << 28  # bytes of a line of JSON, or of a compressed text
_TOO_LONG = f"longer than {LONGEST_DOCUMENT >> 20} MiB"
_PIECE = 1 << 12  # bytes of a compressed file that are read at once
_BATCH = 1_000  # rows of Parquet that are in memory
_SLICE = 100  # rows that become Python's values at once
# How compressed files begin, by the suffix that says so.
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_LOOKED_AT = 200  # rows by which the columns of a file are known
_LONGEST_VALUE = 2_000  # characters of a value that are kept of them
_HEAD = 4_000_000  # bytes of plain text that are looked at

_MAX_COLUMNS = 20  # names that a message lists

BadPolicy = Literal["error", "skip"]
Values = Mapping[str, Any]
Check = Callable[[str, Iterable[str]], None]


class Document(NamedTuple):
    """Text, and the group that must stay on one side of a split (itself if omitted)."""

    text: str
    group: str | None = None


@dataclass
class BadDocuments:
    """What becomes of documents that cannot be read: an error, or a count."""

    policy: BadPolicy = "error"
    count: int = 0
    first: str | None = None

    def met(self, message: str) -> None:
        """Raise the message, or count it."""
        if self.policy == "error":
            raise CorpusError(f"{message}; fix it, or set on_bad_document: skip")
        self.count += 1
        self.first = self.first or message


@dataclass(frozen=True)
class Reading:
    """What readers need to know beside the file."""

    domain: str
    column: str
    bad: BadDocuments
    copy: tuple[str, str] | None = None
    cell: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The columns that are read: of the text, and those that say which rows are its own."""
        return [self.column, *self.cell]

    def is_own(self, values: Values, where: str) -> bool:
        """Tell whether a row has the values that the domain is of."""
        for name, wanted in self.cell.items():
            value = values.get(name)
            if value is None or not str(value).strip():
                self.is_bad(where, f"column {name!r} has no value, so its domain is unknown")
                return False
            if str(value) != wanted:
                return False
        return True

    def text(self, value: object, where: str) -> str | None:
        """Return the text of a value, None for a bad document."""
        if not isinstance(value, str):
            shown = "null" if value is None else f"{type(value).__name__}{_shown(value)}"
            return self.is_bad(where, f"column {self.column!r} is {shown}, not text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return self.is_bad(where, f"invalid UTF-8 at character {error.start + 1}")
        return value

    def is_bad(self, where: object, what: str) -> str | None:
        """Raise or count a bad document, or the rest of a file; what stands for it is None."""
        self.bad.met(f"domain {self.domain!r}: {self._named(where)}: {what}")
        return None

    def check_column(self, where: object, columns: Iterable[str]) -> None:
        """Check that the column of the text is there."""
        names = list(columns)
        missing = next((name for name in self.cell if name not in names), None)
        if missing is not None:
            raise CorpusError(
                f"domain {self.domain!r}: {self._named(where)}: by: no column {missing!r}"
            )
        if self.column not in names:
            shown = sorted(name if name.isprintable() else repr(name) for name in map(str, names))
            more = f" and {len(shown) - _MAX_COLUMNS} more" if len(shown) > _MAX_COLUMNS else ""
            raise CorpusError(
                f"domain {self.domain!r}: {self._named(where)}: no column {self.column!r}; set"
                f" 'column' to one of: {', '.join(n[:80] for n in shown[:_MAX_COLUMNS])}{more}"
            )

    def unreadable(self, where: object, error: BaseException) -> CorpusError:
        """Return the error for a source that cannot be read at all."""
        return CorpusError(f"domain {self.domain!r}: {self._named(where)}: {_reason(error)}")

    def damaged(self, where: object, error: BaseException) -> None:
        """Raise or count the rest of a file that is damaged."""
        if isinstance(error, OSError) and error.errno is not None:
            raise self.unreadable(where, error) from error
        try:
            self.is_bad(where, _reason(error))
        except CorpusError as refused:
            raise refused from error

    def _named(self, where: object) -> str:
        return str(where) if self.copy is None else str(where).replace(*self.copy)


def _reason(error: BaseException) -> str:
    return f"cannot be read: {' '.join(str(error).split())[:300] or type(error).__name__}"


def _shown(value: object) -> str:
    """Return the beginning of a value, and nothing where it cannot be shown."""
    try:
        return f" {str(value)[:40]!r}"
    except (RecursionError, ValueError, MemoryError):  # a deep nest, an endless number
        return ""


class Row(NamedTuple):
    """A row: where it is, and its values by column, or why it cannot be read."""

    where: str
    values: Values | None
    fault: str = ""


def builder_of(path: Path) -> str | None:
    """Return the builder that a file's suffix stands for: json, parquet, arrow, csv, text."""
    name = path.name.lower()
    ending = next((one for one in COMPRESSIONS if name.endswith(one)), "")
    return BUILDERS.get(Path(name.removesuffix(ending)).suffix)


class _Pieces(io.RawIOBase):
    """A file that is read in small pieces, so that its place tells how much was needed."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(_PIECE if size < 0 else min(size, _PIECE))


def _decompressed(raw: IO[bytes], path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix in COMPRESSIONS:
        raw = cast(IO[bytes], _Pieces(raw))
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(raw, "zstd"), 4 * _PIECE)
    makes: dict[str, Callable[[Any], Any]] = {
        ".gz": lambda file: gzip.GzipFile(fileobj=file),
        ".bz2": bz2.BZ2File,
        ".xz": lzma.LZMAFile,
    }
    stream: IO[bytes] = makes.get(suffix, lambda file: file)(raw)
    return stream


class RowFile:
    """The rows of a file, read once; `share` is how much of it was read, about."""

    def __init__(
        self,
        path: Path,
        builder: str,
        columns: Sequence[str] | None = None,
        check: Check = lambda where, names: None,
    ) -> None:
        """Choose the file; nothing is read yet."""
        self.path, self.builder = path, builder
        self.columns, self.check = columns, check
        self.is_packed = path.suffix.lower() in COMPRESSIONS
        self.share = 0.0

    def __iter__(self) -> Iterator[Row]:
        """Give the rows in order."""
        return _READERS[self.builder](self)

    @contextmanager
    def opened(self) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
        """Open the file, decompressed, with what notes how much of it was read."""
        with self.path.open("rb") as raw, _decompressed(raw, self.path) as stream:
            packed = [end for magic, end in _MAGIC.items() if raw.peek(6).startswith(magic)]
            if packed and not self.is_packed:
                raise ValueError(f"it is compressed; rename it to {self.path.name}{packed[0]}")
            size = max(self.path.stat().st_size, 1)

            def note() -> None:
                self.share = min(raw.tell() / size, 1.0)

            yield stream, note

    def rows_of(self, batches: Iterable[Any], share: Callable[[float], float]) -> Iterator[Row]:
        """Give the rows of Arrow batches, and note the share that so many bytes of them are."""
        number, size = 0, 0.0
        for batch in batches:
            _check_places(batch)
            for start in range(0, batch.num_rows, _SLICE):
                part = batch.slice(start, _SLICE)
                for row in rows_of(part):
                    number, size = number + 1, size + part.nbytes / part.num_rows
                    self.share = min(share(size), 1.0)
                    yield Row(f"{self.path} (row {number})", *row)

    def rest(self, stream: IO[bytes]) -> bytes:
        """Return the rest of a file; what is compressed may be far larger than its file."""
        if not self.is_packed:
            return stream.read()
        content = stream.read(LONGEST_DOCUMENT + 1)
        if len(content) > LONGEST_DOCUMENT:
            raise ValueError(_TOO_LONG)
        return content


def documents(rows: Iterable[Row], name: object, reading: Reading) -> Iterator[str]:
    """Give the documents of a file or data set, in order; a bad one is an error, or counted."""
    column = reading.column
    try:
        for where, values, fault in rows:
            if values is None:
                reading.is_bad(where, fault)
            elif not reading.is_own(values, where):
                continue
            elif column not in values:
                reading.is_bad(where, f"no column {column!r}")
            else:
                text = reading.text(values[column], where)
                if text is not None:
                    yield text
    except MixoptError:
        raise
    except Exception as error:  # whatever a library raises on a damaged file
        reading.damaged(name, error)


@dataclass(frozen=True)
class FirstRows:
    """The beginning of a file."""

    rows: tuple[Values, ...]
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
    """Return the first rows of a file, with short values."""
    try:
        if builder == "text":
            with path.open("rb") as raw, _decompressed(raw, path) as stream:
                head = stream.read(_HEAD)
            if b"\0" in head:
                raise CorpusError("is binary, not text")
            rows = [Row("", {"text": head.decode(errors="replace")})] if head else []
        else:
            rows = list(islice(RowFile(path, builder), _LOOKED_AT))
    except CorpusError:
        raise
    except Exception as error:  # whatever a library raises on a damaged file
        raise CorpusError(_reason(error)) from error
    found = [
        {str(name): _short(value) for name, value in row.values.items()}
        for row in rows
        if row.values is not None
    ]
    return FirstRows(tuple(found), len(rows) - len(found))


def _short(value: object) -> object:
    """Return text without its end, plain values, and nothing of anything else."""
    if isinstance(value, str):
        return value[:_LONGEST_VALUE].encode(errors="replace").decode()
    return value if isinstance(value, (int, float, bool)) or value is None else {}


def _json(file: RowFile) -> Iterator[Row]:
    array, is_first, is_checked = b"", True, False
    with file.opened() as (stream, note):
        for number, line in enumerate(_lines(stream), start=1):
            if not line.strip():
                continue
            if is_first and line.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
                array = b"\n" * (number - 1) + line + file.rest(stream)
                break
            is_first = False
            row = _parsed(line, f"{file.path}:{number}")
            if row.values is not None and not is_checked:
                file.check(row.where, row.values)
                is_checked = True
            note()
            yield row
    if array:
        yield from _json_array(file, array)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Give the lines of a file; of one that is too long, its first LONGEST_DOCUMENT bytes."""
    while line := stream.readline(LONGEST_DOCUMENT):
        yield line
        while len(line) == LONGEST_DOCUMENT and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_DOCUMENT)


def _parsed(line: bytes, where: str) -> Row:
    if len(line) == LONGEST_DOCUMENT:
        return Row(where, None, _TOO_LONG)
    try:
        return _object(json.loads(line.rstrip(b"\r\n").decode("utf-8-sig")), where)
    except json.JSONDecodeError as error:
        return Row(where, None, f"broken JSON at column {error.colno}: {error.msg}")
    except (RecursionError, ValueError) as error:
        return Row(where, None, _json_fault(error))


def _json_array(file: RowFile, content: bytes) -> Iterator[Row]:
    try:
        rows = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield Row(f"{file.path}:{line}", None, "invalid UTF-8 in a JSON array")
        return
    except (RecursionError, ValueError) as error:
        place = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        yield Row(f"{file.path}{place}", None, _json_fault(error))
        return
    for number, value in enumerate(rows, start=1):
        row = _object(value, f"{file.path} (item {number})")
        if number == 1 and row.values is not None:
            file.check(row.where, row.values)
        file.share = number / len(rows)
        yield row


def _json_fault(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"invalid UTF-8 at byte {error.start + 1}"
    if isinstance(error, RecursionError):
        return "broken JSON: nested too deeply"
    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return f"broken JSON: {what}".split(";", maxsplit=1)[0]  # of a number of thousands of digits


def _object(value: object, where: str) -> Row:
    if isinstance(value, dict):
        return Row(where, value)
    return Row(where, None, f"a {type(value).__name__}, not an object with columns")


def _text(file: RowFile) -> Iterator[Row]:
    with file.opened() as (stream, _):
        content = file.rest(stream)
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        yield Row(str(file.path), dict.fromkeys(file.columns or ["text"], text))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield Row(f"{file.path}:{line}", None, f"invalid UTF-8 at byte {error.start + 1}")


def _csv(file: RowFile) -> Iterator[Row]:
    delimiter = "\t" if ".tsv" in file.path.suffixes else ","
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with file.opened() as (binary, note):
            lines = io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="")
            rows = csv.reader(lines, delimiter=delimiter)
            header = next(rows, [])
            file.check(str(file.path), header)
            for row in rows:
                if row:
                    values = dict.fromkeys(header) | dict(zip(header, row, strict=False))
                    note()
                    yield Row(f"{file.path}:{rows.line_num}", values)
    finally:
        csv.field_size_limit(limit)


def _parquet(file: RowFile) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file.path) as parquet:
        names = parquet.schema_arrow.names
        file.check(str(file.path), names)
        chosen = None if file.columns is None else [n for n in file.columns if n in names]
        batches = parquet.iter_batches(batch_size=_BATCH, columns=chosen)
        groups = [parquet.metadata.row_group(k) for k in range(parquet.num_row_groups)]
        columns = [group.column(k) for group in groups for k in range(group.num_columns)]
        total = sum(
            one.total_uncompressed_size
            for one in columns
            if chosen is None or one.path_in_schema in chosen
        )
        yield from file.rows_of(batches, lambda size: size / max(total, 1))


def _arrow(file: RowFile) -> Iterator[Row]:
    import pyarrow as pa

    with pa.memory_map(str(file.path)) as source:
        try:
            stream = pa.ipc.open_stream(source)
            batches: Iterable[Any] = stream
        except pa.ArrowInvalid:
            stream = pa.ipc.open_file(source)
            batches = [stream.get_batch(k) for k in range(stream.num_record_batches)]
        file.check(str(file.path), stream.schema.names)
        names = [n for n in stream.schema.names if file.columns is None or n in file.columns]
        total = sum(b.select(names).nbytes for b in batches) if isinstance(batches, list) else 0
        chosen = (batch.select(names) for batch in batches)
        yield from file.rows_of(
            chosen, lambda size: size / total if total else source.tell() / source.size()
        )


def _check_places(batch: Any) -> None:
    """Check where the texts begin and end, but not that they are UTF-8: single ones may be bad."""
    import pyarrow as pa

    views = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column in batch.columns:
        for array in getattr(column, "chunks", [column]):
            view = views.get(array.type)
            (array if view is None else array.view(view)).validate(full=True)


def rows_of(part: Any) -> Iterator[tuple[Values | None, str]]:
    """Give some rows of a batch; where one is not UTF-8, the others are still given."""
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
