"""Every message that docs/operations.md shows is one that the code can say."""

from __future__ import annotations

import ast
import re
from functools import cache

from places import PROJECT

PAGE = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCES = ("mixopt", "proxies/mixopt_proxies", "regressors/mixopt_regressors")


@cache
def said() -> list[str]:
    """Return every text in the source, with `...` where a value comes in."""
    found = []
    for folder in SOURCES:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    parts = [v.value if isinstance(v, ast.Constant) else "..." for v in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def shown() -> list[str]:
    """Return the messages of the page: what stands in the middle column of its tables."""
    rows = re.findall(r"^\|[^|]+\|([^|]+)\|[^|]+\|$", PAGE, re.MULTILINE)
    return [message for cell in rows for message in re.findall(r"`([^`]+)`", cell)]


def is_said(message: str) -> bool:
    """Return whether a text of the source has a message's words, in their order."""
    words = [re.escape(part.strip()) for part in message.split("...") if part.strip(" .:;,")]
    pattern = re.compile(".*".join(words), re.DOTALL)
    return any(pattern.search(text) for text in said())


def test_each_message_of_the_page_is_in_the_code():
    assert [message for message in shown() if not is_said(message)] == []
    assert len(shown()) > 25


def test_a_message_that_nothing_says_is_found():
    assert not is_said("the worker ... was abducted")
