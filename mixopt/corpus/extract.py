r"""Take clean text out of source files: no licence headers, no lines of thousands of characters.

Each function takes a file's text and returns text, empty where nothing is worth keeping.
`pieces` cuts what is long at blank lines or line ends.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator

MAX_LINE = 2_000
MAX_PIECE = 8_000
MIN_PIECE = 100
MIN_DOCSTRING = 120

# Comments and strings in the order in which Python would read them, so that a quotation mark
# inside a comment or another string opens nothing.
_PYTHON_TOKEN = re.compile(
    r'#[^\n]*|[rRuU]?"""(?:[^"\\]|\\.|"(?!""))*"""|' + r"[rRuU]?'''(?:[^'\\]|\\.|'(?!''))*'''|"
    r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'",
    re.DOTALL,
)
_LEADING = re.compile(r"(?:\s|#[^\n]*\n)*")
_COLON = re.compile(r":[ \t]*(?:#[^\n]*)?\s*\Z")
_HASH_HEADER = re.compile(r"\A(?:\s*#[^\n]*\n)+")
_SLASH_HEADER = re.compile(r"\A(?:\s*(?://[^\n]*(?:\n|\Z)|/\*.*?\*/))+", re.DOTALL)
_LICENCE = re.compile(r"copyright|licen[cs]e|all rights reserved|spdx", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/=_-]{200,}")
_HEX = re.compile(r"[0-9a-fA-F]{32}")
_LONG_ROW = re.compile(r"([^\n]{1000,1500}[ ,;\t])")
_STATEMENT_END = re.compile(r"(;|\)\{|=>\{|\})(?=[A-Za-z_$(@.#])")


def code(text: str, header: re.Pattern[str]) -> str:
    """Leave out the licence header and lines that no person wrote."""
    return short_lines(without_header(text, header))


def python_code(text: str) -> str:
    """Return Python, Cython or a stub without its licence header."""
    return code(text, _HASH_HEADER)


def c_code(text: str) -> str:
    """Return C++ without its licence header."""
    return code(text, _SLASH_HEADER)


def minified_code(text: str) -> str:
    """Return JavaScript or CSS with a line for each statement where it has been minified."""
    if len(text) > 200 * (text.count("\n") + 1):
        text = _STATEMENT_END.sub(r"\1\n", text)
    return code(text, _SLASH_HEADER)


def docstrings(text: str) -> str:
    """Return the docstrings of a Python file that are long enough to be prose."""
    leading = _LEADING.match(text)
    first = leading.end() if leading else 0
    found = []
    for match in _PYTHON_TOKEN.finditer(text):
        literal, start = match.group(), match.start()
        if literal.endswith(('"""', "'''")) and (start == first or _follows_colon(text, start)):
            found.append(_prose(literal))
    return "\n\n".join(docstring for docstring in found if docstring)


def json_text(text: str) -> str:
    """Return JSON without lines of hashes, laid out in lines where it is one line."""
    if len(text) > MAX_LINE * (text.count("\n") + 1) / 10:
        try:
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except ValueError:
            return ""
    return "\n".join(line for line in short_lines(text).split("\n") if not _HEX.search(line))


def numbers(text: str) -> str:
    """Return a table that is mostly digits, its longest rows cut, and nothing of other files."""
    sample = "".join(text[:4_000].split())
    digits = sum(character.isdigit() for character in sample)
    return short_lines(_LONG_ROW.sub(r"\1\n", text)) if digits > 0.5 * len(sample) else ""


def description(text: str) -> str:
    """Return Markdown, or what a package's METADATA says after its headers."""
    if text.startswith("Metadata-Version:"):
        _, _, text = text.partition("\n\n")
    return short_lines(text)


def short_lines(text: str) -> str:
    """Leave out lines of more than `MAX_LINE` characters or with encoded data."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = (line.rstrip() for line in lines if len(line) <= MAX_LINE)
    return "\n".join(line for line in kept if len(line) < 200 or not _BASE64.search(line))


def without_header(text: str, header: re.Pattern[str]) -> str:
    """Leave out the comment at the top when it speaks of a licence."""
    match = header.match(text)
    return text[match.end() :] if match and _LICENCE.search(match.group()) else text


def pieces(text: str, longest: int = MAX_PIECE) -> Iterator[str]:
    """Cut text in pieces of at most `longest` characters, at a blank line or a line's end."""
    text = text.strip("\n")
    while len(text) > longest:
        cut = text.rfind("\n\n", longest // 2, longest)
        cut = cut if cut > 0 else text.rfind("\n", longest // 2, longest)
        cut = cut if cut > 0 else longest
        yield text[:cut].rstrip()
        text = text[cut:].strip("\n")
    if text.strip():
        yield text.rstrip()


def _follows_colon(text: str, start: int) -> bool:
    """Tell whether the string begins a line, the one after a colon."""
    line_start = text.rfind("\n", 0, start) + 1
    if text[line_start:start].strip():
        return False
    return _COLON.search(text, max(line_start - 200, 0), line_start) is not None


def _prose(literal: str) -> str:
    try:
        text = inspect.cleandoc(str(ast.literal_eval(literal)))
    except (SyntaxError, ValueError):
        return ""
    lines = text.split("\n")
    code_lines = sum(line.lstrip().startswith((">>>", "...")) for line in lines)
    if len(text) < MIN_DOCSTRING or 4 * code_lines > len(lines) or _LICENCE.search(text[:300]):
        return ""
    return text
