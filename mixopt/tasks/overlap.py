r"""Find text that contains the gold answer of an item with 13 words of the context before it.

Words are runs of letters, digits and underscores in lower case, so that punctuation and white space
do not hide an item. Items that have fewer than 13 words altogether are not looked for: such text is
anywhere.

Of each item the longest word is looked for first, which few documents have; a document is read in
time that grows with its length alone. What is kept in memory are the items.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mixopt.tasks.items import Item

WORDS = 13  # of the context, and the fewest of an item; the n-gram of GPT-3's check
_WORD = re.compile(r"\w+")


class _Passage(NamedTuple):
    task: str
    words: tuple[str, ...]
    anchor: int  # where its longest word is


class AnswerFinder:
    """Finds the items of tasks in text."""

    def __init__(self) -> None:
        """Look for nothing yet."""
        self._passages: dict[str, list[_Passage]] = {}

    def add(self, task: str, items: Iterable[Item]) -> None:
        """Look for the items of a task too."""
        for item in items:
            before = _words(item.contexts[item.gold])[-WORDS:]
            words = (*before, *_words(item.answer))
            if len(words) >= WORDS:
                anchor = max(range(len(words)), key=lambda place: len(words[place]))
                passage = _Passage(task, words, anchor)
                self._passages.setdefault(words[anchor], []).append(passage)

    def tasks_in(self, text: str) -> set[str]:
        """Return the tasks of which a text has an item's answer with its context."""
        words = _words(text)
        if self._passages.keys().isdisjoint(words):
            return set()
        return set(self._found(words))

    def _found(self, words: list[str]) -> Iterator[str]:
        for place, word in enumerate(words):
            for passage in self._passages.get(word, ()):
                first = place - passage.anchor
                stop = first + len(passage.words)
                if first >= 0 and tuple(words[first:stop]) == passage.words:
                    yield passage.task


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
