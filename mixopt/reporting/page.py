"""The frame of a page: one HTML file with its style, scripts and figures inside.

Nothing is fetched: no font, no script, no image. The page follows the reader's light or dark, is
legible on a narrow screen, prints, and works where scripts do not run. Templates escape every text,
and the Content-Security-Policy allows no request, and no script but those that are written here, by
their hashes: a name that were not escaped could still run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mixopt.proposals import Interval, named
from mixopt.system import __version__, difference_text, interval_text, share_text

_MARKS = re.compile(r"([_/.:-])(?=[^\W_])")  # a line may break after them


@dataclass(frozen=True)
class Section:
    """A part of a page: its anchor, its heading, markup, and CSS and JavaScript of its own."""

    name: str
    title: str
    body: Markup
    style: str = ""
    script: str = ""


def page_html(name: str, title: str, first: Markup, sections: Sequence[Section]) -> str:
    """Return the whole file."""
    scripts = [asset("page.js"), *(part.script for part in sections if part.script)]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    return template(
        "page.html",
        name=name,
        title=title,
        policy=policy,
        style=Markup(asset("page.css") + "".join(part.style for part in sections)),
        first=first,
        sections=sections,
        version=__version__,
        scripts=[Markup(text) for text in scripts],
    )


def template(file: str, /, **values: Any) -> Markup:
    """Fill a template of `assets`; every text in it is escaped."""
    return Markup(_environment().get_template(file).render(values))


def paragraph(text: str, style: str = "") -> Markup:
    """Return a paragraph."""
    return _macro("paragraph", text, style)


def heading(text: str) -> Markup:
    """Return a heading inside a section."""
    return _macro("heading", text)


def bullets(lines: Iterable[str]) -> Markup:
    """Return a list."""
    return _macro("bullets", list(lines))


def folded(title: str, text: str) -> Markup:
    """Return text that is shown when its title is opened."""
    return _macro("folded", title, text)


def folded_list(title: str, lines: Iterable[str]) -> Markup:
    """Return a list that is shown when its title is opened."""
    return _macro("folded_list", title, list(lines))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    texts: Sequence[int] = (),
    styles: Sequence[str] = (),
    is_sortable: bool = True,
) -> Markup:
    """Return a table; the page's script sorts it, and folds a long one."""
    return _macro("table", columns, list(rows), caption, texts, styles, is_sortable)


def json_text(content: Any) -> Markup:
    """Return plain values as JSON for a `script` element, which no name can end."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":  # letters of its strings alone
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def asset(name: str) -> str:
    """Return a file of `assets`."""
    return (files("mixopt.reporting") / "assets" / name).read_text(encoding="utf-8")


def _macro(name: str, *values: Any) -> Markup:
    made: Markup = getattr(_environment().get_template("parts.html").module, name)(*values)
    return made


def change_word(cost: Interval) -> str:
    """Say what the interval of a change of a loss allows to say."""
    if cost.low > 0:
        return "worse"
    return "better" if cost.high < 0 else "not significant"


@cache
def _environment() -> Environment:
    loader = PackageLoader("mixopt.reporting", "assets")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters |= {
        "breakable": _breakable,
        "difference": difference_text,
        "ends": lambda one: interval_text(one.low, one.high),
        "named": named,
        "share": share_text,
        "tone": lambda word: {"better": "good", "worse": "bad"}.get(word, ""),
        "word": change_word,
    }
    return made


def _breakable(text: str) -> Markup:
    """Return a name that a narrow column may break after a mark, and nowhere else."""
    return Markup(_MARKS.sub(r"\1<wbr>", str(escape(text))))
