"""Oddities in items that can be scored nevertheless.

Nothing is repaired: an item is scored exactly as its file has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mixopt.tasks.items import Item

SHOWN = 2  # ids that a line names
# An answer that is another language's value written out, such as DROP's (' ('swedish',)').
_TUPLE = re.compile(r"\s*[(\[](['\"]).*\1,?[)\]]\s*", re.DOTALL)


def item_warnings(items: Sequence[Item]) -> list[str]:
    """Return a line for each kind of thing that is odd, with how many items have it."""
    kinds = {
        "no white space between context and answer": _is_joined,
        "two equal choices": lambda item: len(set(_pairs(item))) < len(item.choices),
        "an answer of white space alone": lambda item: not all(map(str.strip, item.choices)),
        "an answer that looks like a list or tuple of code": lambda item: bool(
            _TUPLE.fullmatch(item.answer)
        ),
        "carriage returns (CRLF) in the answer": lambda item: "\r" in item.answer,
        "a line of the answer that begins with one space": _is_shifted,
    }
    found = []
    for what, is_odd in kinds.items():
        odd = [item.id for item in items if is_odd(item)]
        if odd:
            found.append(f"{_counted(odd, len(items))} have {what}")
    again = _doubled(items)
    if again:
        found.append(f"{_counted(again, len(items))} appear twice under different ids")
    return found


def _pairs(item: Item) -> list[tuple[str, str]]:
    return list(zip(item.contexts, item.choices, strict=True))


def _is_joined(item: Item) -> bool:
    context = item.contexts[item.gold]
    return bool(context) and not (context[-1:].isspace() or item.answer[:1].isspace())


def _is_shifted(item: Item) -> bool:
    return item.contexts[item.gold][-1:] == "\n" and re.match(r" \S", item.answer) is not None


def _doubled(items: Sequence[Item]) -> list[str]:
    """Return the ids of items whose text is that of an earlier one."""
    texts = [(item.contexts, item.choices) for item in items]
    first = {text: item.id for item, text in zip(reversed(items), reversed(texts), strict=True)}
    pairs = zip(items, texts, strict=True)
    return [item.id for item, text in pairs if first[text] != item.id]


def _counted(ids: Sequence[str], of: int) -> str:
    more = "" if len(ids) <= SHOWN else " and others"
    return f"{len(ids)} of {of:,} items ({', '.join(ids[:SHOWN])}{more})"
