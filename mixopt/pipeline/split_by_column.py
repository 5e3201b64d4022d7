"""Split files whose rows name their source into one file a source.

An experiment has a domain for each source, and a domain is files: `mixopt init` writes a sample of
each source beside the experiment, and states how much text the whole source has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mixopt.corpus import builder_of, column_pairs
from mixopt.errors import ConfigError
from mixopt.pipeline.found_domains import MOST_SOURCES, FoundDomain
from mixopt.system import name_fault, steady_progress

SAMPLE = 50_000_000  # bytes of text of a source that are written


@dataclass
class SplitSource:
    """One source of the rows.

    Attributes:
        file: The sample of its text, JSON lines.
        bytes: Of text in all rows of the source.
        written: Of them in the sample.
        documents: Rows of the source.
    """

    file: Path
    bytes: int = 0
    written: int = 0
    documents: int = 0


def split_by_column(domain: FoundDomain, column: str, folder: Path) -> dict[str, SplitSource]:
    """Write a sample of each source that the rows name, and count the text of all.

    Args:
        domain: Files whose rows have the column.
        column: It names the source of a row.
        folder: Where the files go; it must not exist.

    Raises:
        ConfigError: The folder exists, there are too many sources, or one cannot name a file.
        CorpusError: A file cannot be read.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(
            f"init: {folder} already exists; move it, or choose another --out"
        ) from None
    found: dict[str, SplitSource] = {}
    with ExitStack() as files:
        streams: dict[str, IO[str]] = {}
        for source, text in _rows(domain, column):
            if source not in found:
                found[source] = _source(source, folder, column, len(found))
                opened = found[source].file.open("w", encoding="utf-8")
                streams[source] = files.enter_context(opened)
            one, size = found[source], len(text.encode())
            one.bytes, one.documents = one.bytes + size, one.documents + 1
            if one.written < SAMPLE:
                one.written += size
                streams[source].write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return found


def _rows(domain: FoundDomain, column: str) -> Iterator[tuple[str, str]]:
    total = sum(file.stat().st_size for file in domain.files)
    done = 0
    with steady_progress("splitting by source", max(1, total)) as update:
        for file in domain.files:
            builder = builder_of(file) or ""
            yield from column_pairs(file, builder, column, domain.column)
            done += file.stat().st_size
            update(done, f"{file.name}")


def _source(source: str, folder: Path, column: str, known: int) -> SplitSource:
    fault = name_fault(source)
    if fault is not None:
        raise ConfigError(f"init: column {column!r} has the value {source!r}: {fault}")
    if known == MOST_SOURCES:
        raise ConfigError(f"init: column {column!r} has more than {MOST_SOURCES} values")
    return SplitSource(folder / f"{source}.jsonl")
