"""Check that the files of a source are there, whether they are text or tokens."""

from __future__ import annotations

from mixopt.config import SourceConfig
from mixopt.corpus.text import check_files, is_local, text_files
from mixopt.corpus.token_files import check_token_files
from mixopt.errors import CorpusError


def check_source(domain: str, source: SourceConfig) -> None:
    """Check that files are there, without reading what is in them.

    Raises:
        CorpusError: A path or glob matches nothing, all files are empty, a suffix stands for no
            reader of text, or files of tokens are not of their format or damaged.
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
