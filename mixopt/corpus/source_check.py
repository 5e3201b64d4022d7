"""Check that the files of a source are there, whether they are text or tokens."""

from __future__ import annotations

from mixopt.config import SourceConfig
from mixopt.corpus.text import check_files
from mixopt.corpus.token_files import check_token_files


def check_source(domain: str, source: SourceConfig) -> None:
    """Check that files are there, without reading what is in them.

    Raises:
        CorpusError: A path or glob matches nothing, a suffix stands for no reader of text, or files
            of tokens are not of their format or damaged.
    """
    if source.is_tokens:
        check_token_files(domain, source)
    else:
        check_files(domain, source)
