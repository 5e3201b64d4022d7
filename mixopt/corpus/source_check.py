"""Check that the files of a source exist and can be read, whether they are text or tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixopt.config import SourceConfig
from mixopt.corpus.text import (
    BadDocuments,
    Reading,
    TextFile,
    check_files,
    is_local,
    text_files,
)
from mixopt.corpus.token_files import check_token_files
from mixopt.errors import CorpusError

ROWS = ("json", "csv")  # builders whose rows have columns and are read in this process


def check_source(domain: str, source: SourceConfig) -> None:
    """Check that files exist and are not empty; of text, that the first document has its column.

    Raises:
        CorpusError: A path or glob matches nothing, all files are empty, a suffix stands for no
            reader of text, the first JSON or CSV row lacks the column of the text, or files of
            tokens are not of their format or damaged.
    """
    if source.is_tokens:
        check_token_files(domain, source)
        return
    check_files(domain, source)
    if source.has_text and source.environment is None and is_local(source):
        files = text_files(domain, source)
        if files and not any(file.bytes for file in files):
            what = "the file is" if len(files) == 1 else f"all {len(files)} files are"
            where = source.one_path or ", ".join(source.paths)
            raise CorpusError(
                f"domain {domain!r}: {where}: {what} empty; give it some text, or leave it out"
            )
        _check_column(domain, source, files)


def _check_column(domain: str, source: SourceConfig, files: Sequence[TextFile]) -> None:
    """Read the first document of a file on this disk that needs no other process to be read."""
    for file in files:
        is_here = isinstance(file.place, Path) and file.suffix != ".zst"
        if is_here and file.builder in ROWS and file.bytes:
            next(file.documents(Reading(domain, source.column, BadDocuments("skip"))), None)
            return
