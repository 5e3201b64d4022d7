"""Measure the text in a file without reading all of it.

Plain text is as long as its file. Arrow and Parquet files say it: by the places of their texts, and
by the footer's uncompressed length of the column. Of JSON lines, CSV and compressed text a part is
read, and what is text in it, and how far it was compressed, stands for the rest. A file that is not
longer than the part is read whole, and then the count is exact.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from mixopt.corpus.text.compressed_length import expansion
from mixopt.corpus.text.documents import BadDocuments
from mixopt.corpus.text.reader_input import Reading
from mixopt.corpus.text.readers import (
    COMPRESSIONS,
    FOREIGN,
    LONGEST_DOCUMENT,
    arrow_batches,
    open_file,
    read_here,
)
from mixopt.errors import CorpusError
from mixopt.system import in_child

_SPOTS = 8  # places at which a long file of JSON lines is read
_TEXT, _SIZE = b"t", b"s"


@dataclass(frozen=True)
class FileSize:
    """How much text a file holds.

    Attributes:
        text: Bytes of text in UTF-8.
        documents: How many there are.
        how: `whole` where all was read, `length` of plain text, `metadata` of Parquet and Arrow,
            `sample` where a part stands for the rest.
    """

    text: float
    documents: float
    how: str

    @property
    def is_exact(self) -> bool:
        """Whether nothing was estimated."""
        return self.how in ("whole", "length")


def file_size(
    path: Path, builder: str, reading: Reading, most: int, keep: Callable[[str], None]
) -> FileSize:
    """Return how much text a file holds.

    Args:
        path: The file.
        builder: json, parquet, arrow, csv or text.
        reading: Whose file it is, and the column.
        most: Bytes of text to read, at most.
        keep: Called with each text that is read.

    Raises:
        CorpusError: The file cannot be read, or the column is missing.
    """
    given: dict[str, Any] = {"path": str(path), "builder": builder, "most": most}
    given |= {"domain": reading.domain, "column": reading.column}
    found: FileSize | None = None
    foreign = builder in FOREIGN or path.suffix.lower() == ".zst"
    items = (
        in_child(f"{__name__}:measured", given, died=lambda how: _died(path, how))
        if foreign
        else measured(**given)
    )
    for item in items:
        if item[:1] == _TEXT:
            keep(item[1:].decode())
        else:
            found = FileSize(**json.loads(item[1:]))
    assert found is not None, "the size is the last item"
    return found


def measured(path: str, builder: str, most: int, domain: str, column: str) -> Iterator[bytes]:
    """Give texts of a file, and at last its size; runs in a child for some files."""
    reading, file = Reading(domain, column, BadDocuments("skip")), Path(path)
    try:
        yield from _MEASURES[builder](file, reading, most)
    except CorpusError:
        raise
    except Exception as error:  # whatever a library raises on a damaged file
        raise reading.unreadable(path, error) from error


def _died(path: Path, how: str) -> CorpusError:
    return CorpusError(f"{path}: cannot be read: the reader {how}")


def _size(text: float, documents: float, how: str) -> bytes:
    return _SIZE + json.dumps(asdict(FileSize(text, documents, how))).encode()


def _whole(path: Path, builder: str, reading: Reading) -> Iterator[bytes]:
    text = documents = 0
    for document in read_here(path, builder, reading):
        content = document.encode()
        text, documents = text + len(content), documents + 1
        yield _TEXT + content
    yield _size(text, documents, "whole")


class _CountedLines:
    """The lines of a file, decompressed, and how many bytes of them were read."""

    def __init__(self, path: Path) -> None:
        self.path, self.length, self.read = path, path.stat().st_size, 0
        self.is_compressed = path.suffix.lower() in COMPRESSIONS
        self.inner: IO[bytes] = open_file(path)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.inner.readline(LONGEST_DOCUMENT):
            self.read += len(line)
            yield line

    def __enter__(self) -> _CountedLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.inner.close()

    def whole(self, most: int) -> float:
        """Return how many decompressed bytes the file has, by the first `most` of them."""
        return self.length * (expansion(self.path, most) if self.is_compressed else 1.0)


def _text(path: Path, reading: Reading, most: int) -> Iterator[bytes]:
    with _CountedLines(path) as stream:
        if not stream.is_compressed and stream.length > most:
            yield _TEXT + _cut(stream.inner.read(most))
            yield _size(stream.length, 1, "length")
            return
        content = stream.inner.read(most + 1)
        if len(content) <= most:
            yield from _whole(path, "text", reading)
            return
        yield _TEXT + _cut(content)
        yield _size(stream.whole(most), 1, "sample")


def _rows(path: Path, builder: str, reading: Reading, most: int) -> Iterator[bytes]:
    """Measure JSON lines or CSV."""
    with _CountedLines(path) as stream:
        if builder == "json" and _is_array(stream.inner):
            yield from _whole(path, builder, reading)
            return
        if not stream.is_compressed and stream.length <= most:
            yield from _whole(path, builder, reading)
            return
    with _CountedLines(path) as stream:
        text = documents = 0
        ended = True
        for content in _contents(path, stream, builder, reading, most):
            text, documents = text + len(content), documents + 1
            yield _TEXT + content
            if text >= most:
                ended = False
                break
        if ended and (builder == "csv" or stream.is_compressed):
            yield _size(text, documents, "whole")
            return
        times = stream.whole(most) / max(stream.read, 1)
        yield _size(text * times, documents * times, "sample")


def _contents(
    path: Path, stream: _CountedLines, builder: str, reading: Reading, most: int
) -> Iterator[bytes]:
    texts = (
        _csv_texts(path, stream, reading)
        if builder == "csv"
        else _json_texts(path, stream if stream.is_compressed else _spots(stream, most), reading)
    )
    for text in texts:
        if isinstance(text, str):
            yield text.encode(errors="ignore")


def _is_array(stream: IO[bytes]) -> bool:
    return stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["


def _spots(stream: _CountedLines, most: int) -> Iterator[bytes]:
    """Give the lines at several places of a plain file, as many bytes at each."""
    for spot in range(_SPOTS):
        stream.inner.seek(spot * stream.length // _SPOTS)
        if spot:
            stream.inner.readline(LONGEST_DOCUMENT)  # the rest of a line
        stop = stream.read + most // _SPOTS
        for line in stream:
            yield line
            if stream.read >= stop:
                break


def _json_texts(path: Path, lines: Iterable[bytes], reading: Reading) -> Iterator[Any]:
    first = True
    for line in lines:
        try:
            row = json.loads(line.decode("utf-8-sig", errors="replace"))
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            if first:
                reading.check_column(path, row)
            first = False
            yield row.get(reading.column)


def _csv_texts(path: Path, stream: _CountedLines, reading: Reading) -> Iterator[Any]:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    limit = csv.field_size_limit(sys.maxsize)
    try:
        lines = (line.decode("utf-8-sig", errors="replace") for line in stream)
        rows = csv.reader(lines, delimiter=delimiter)
        header = next(rows, [])
        reading.check_column(path, header)
        place = header.index(reading.column)
        for row in rows:
            yield row[place] if place < len(row) else None
    finally:
        csv.field_size_limit(limit)


def _parquet(path: Path, reading: Reading, most: int) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        reading.check_column(path, file.schema_arrow.names)
        length = _column_length(file.metadata, reading.column)
        if length <= most:
            yield from _whole(path, "parquet", reading)
            return
        read = 0
        for batch in file.iter_batches(batch_size=100, columns=[reading.column]):
            for value in batch.column(0).to_pylist():
                if isinstance(value, str):
                    content = value.encode(errors="ignore")
                    read += len(content)
                    yield _TEXT + content
            if read >= most:
                break
        rows = file.metadata.num_rows
        # A text in a page has its length before it, in four bytes.
        yield _size(max(length - 4 * rows, 0), rows, "metadata")


def _column_length(metadata: Any, column: str) -> int:
    groups = (metadata.row_group(k) for k in range(metadata.num_row_groups))
    chunks = (group.column(k) for group in groups for k in range(group.num_columns))
    return sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == column)


def _measurable(column: Any) -> Any:
    """Return a column whose lengths Arrow can tell: it cannot of views, which polars writes."""
    import pyarrow as pa

    is_view = pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type)
    return column.cast(pa.large_binary()) if is_view else column


def _arrow(path: Path, reading: Reading, most: int) -> Iterator[bytes]:
    import pyarrow.compute as pc

    with arrow_batches(path, reading) as batches:
        text = documents = read = 0
        for batch in batches:
            column = batch.column(reading.column)
            text += pc.sum(pc.binary_length(_measurable(column))).as_py() or 0
            documents += len(column)
            for value in column if read < most else ():
                if read < most and value.is_valid:
                    content = value.as_py().encode(errors="ignore")
                    read += len(content)
                    yield _TEXT + content
        yield _size(text, documents, "metadata")


def _cut(content: bytes) -> bytes:
    return content.decode("utf-8", errors="ignore").encode()


_MEASURES: dict[str, Callable[[Path, Reading, int], Iterator[bytes]]] = {
    "json": lambda path, reading, most: _rows(path, "json", reading, most),
    "csv": lambda path, reading, most: _rows(path, "csv", reading, most),
    "text": _text,
    "parquet": _parquet,
    "arrow": _arrow,
}
