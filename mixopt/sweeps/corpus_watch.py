"""Find out that a file of the corpus changed while trials trained on it."""

from __future__ import annotations

from pathlib import Path

from mixopt.errors import CorpusError, ShardError
from mixopt.system import file_mark, visible_files

CHANGED_OF_INODE = 2  # where a mark has the time of the last change of the file's inode


class CorpusWatch:
    """The marks of a corpus's files, compared whenever a group has ended."""

    def __init__(self, corpus: Path) -> None:
        """Note sizes, times and inodes, which `Corpus.open` has verified the content of."""
        self._corpus, self._marks = corpus, _marks(corpus)

    def check(self) -> None:
        """Check that what the trials trained on is what the sweep began with.

        Raises:
            CorpusError: A file is damaged, or was written, replaced or deleted in the meantime.
        """
        now = _marks(self._corpus)
        if now == self._marks:
            return
        from mixopt.corpus import Corpus

        Corpus.open(self._corpus)
        for name in sorted(now.keys() | self._marks.keys()):
            if _of_content(now.get(name)) != _of_content(self._marks.get(name)):
                raise CorpusError(
                    f"{self._corpus / name}: changed while trials trained on it; the trials that"
                    " ended since are not kept: run the same command again"
                )
        self._marks = now  # modes or owners have changed, and no content


def _marks(corpus: Path) -> dict[str, list[int]]:
    marks = {}
    for path in visible_files(corpus):
        try:
            marks[path.relative_to(corpus).as_posix()] = file_mark(path.stat())
        except OSError as error:
            raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
    return marks


def _of_content(mark: list[int] | None) -> list[int] | None:
    if mark is None:
        return None
    return mark[:CHANGED_OF_INODE] + mark[CHANGED_OF_INODE + 1 :]
