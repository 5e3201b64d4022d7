"""Sizes of remote data sets, as far as `datasets` knows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixopt.config import SourceConfig
from mixopt.corpus.text.file_sizes import FileSize
from mixopt.corpus.text.reader_input import Reading
from mixopt.corpus.text.sources import load_rows
from mixopt.errors import CorpusError, PluginError


def published_size(
    source: SourceConfig, reading: Reading, most: int, keep: Callable[[str], None]
) -> FileSize:
    """Return how much text a data set holds.

    One that was saved to disk says where its texts begin and end. One on the hub says how many
    bytes a split has, all columns together; the first rows tell what is text of them.

    Args:
        source: The data set.
        reading: Whose it is, and the column.
        most: Bytes of text to read, at most.
        keep: Called with each text that is read.

    Raises:
        CorpusError: It cannot be reached, or has no sizes.
    """
    if source.one_path is not None and Path(source.one_path).expanduser().is_dir():
        return _saved(load_rows(source, reading), source, reading, most, keep)
    rows, length = _published(source, reading)
    read = text = documents = 0
    streamed = source.model_copy(update={"streaming": True})
    for row in load_rows(streamed, reading):
        reading.check_column(source.path, row)
        read += sum(len(str(value).encode(errors="ignore")) for value in row.values())
        if isinstance(row[reading.column], str):
            keep(row[reading.column])
            text += len(row[reading.column].encode(errors="ignore"))
        documents += 1
        if text >= most:
            break
    return FileSize(length * text / max(read, 1), rows or documents, "metadata of the hub")


def _saved(
    rows: Any, source: SourceConfig, reading: Reading, most: int, keep: Callable[[str], None]
) -> FileSize:
    import pyarrow.compute as pc

    reading.check_column(source.path, rows.column_names)
    column = rows.data.column(reading.column)
    read = 0
    for text in (value.as_py() for value in column):
        if read >= most:
            break
        if isinstance(text, str):
            read += len(text.encode(errors="ignore"))
            keep(text)
    return FileSize(pc.sum(pc.binary_length(column)).as_py() or 0, len(column), "metadata")


def _published(source: SourceConfig, reading: Reading) -> tuple[int, int]:
    """Return how many rows and bytes the hub says that a split has."""
    mend = "state its tokens or bytes in corpus.domains"
    try:
        import datasets
    except ImportError as error:
        raise PluginError(
            f"domain {reading.domain!r} needs datasets: pip install 'mixopt[proxies]'"
        ) from error
    try:
        builder = datasets.load_dataset_builder(
            source.one_path, source.name, data_files=source.data_files, revision=source.revision
        )
    except Exception as error:  # whatever the hub's client raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CorpusError(
            f"domain {reading.domain!r}: {source.path}: its sizes are not available here "
            f"({reason}); {mend}"
        ) from error
    split = (builder.info.splits or {}).get(source.split)
    if split is None or not split.num_bytes:
        raise CorpusError(
            f"domain {reading.domain!r}: {source.path}: the hub has no size for the split "
            f"{source.split!r}; {mend}"
        )
    return int(split.num_examples or 0), int(split.num_bytes)
