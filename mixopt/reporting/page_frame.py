"""The frame of the decision page: one HTML file with its style and scripts inside.

Nothing is fetched: no font, no script, no image. The page follows the reader's light or dark, is
legible on a narrow screen, prints, and works where scripts do not run. Its Content-Security-Policy
allows no request, and no script but those that are written here, by their hashes: a name that were
not escaped could still run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from mixopt.reporting.page import PageSection


def page(name: str, title: str, answer: str, sections: Sequence[PageSection], ending: str) -> str:
    """Return the whole file.

    Args:
        name: What the run is called.
        title: What a browser's tab says.
        answer: Markup of the first screen, with the page's only `h1`.
        sections: What follows, each with a link at the top.
        ending: A line at the end.
    """
    scripts = [_asset("page.js"), *(part.script for part in sections if part.script)]
    style = _asset("page.css") + "".join(part.style for part in sections)
    policy = escape(_policy(scripts), quote=True)
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
    )
    body = "".join(
        f'<section id="{part.name}" aria-labelledby="{part.name}-title">'
        f'<h2 id="{part.name}-title">{escape(part.title)}</h2>{part.body}</section>\n'
        for part in sections
    )
    return (
        f'{head}<body><a class="skip" href="#answer">Skip to the answer</a><div class="page">\n'
        f"{_top(name, sections)}<main>\n{answer}{body}</main>\n"
        f"<footer>{escape(ending)}</footer></div>\n"
        f"{''.join(f'<script>{script}</script>' for script in scripts)}</body></html>\n"
    )


def data_block(name: str, content: Any) -> str:
    """Return an element that keeps plain values for a script, as JSON that no name can end.

    Args:
        name: Its id.
        content: Plain values.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _top(name: str, sections: Sequence[PageSection]) -> str:
    links = "".join(
        f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in sections
    )
    return (
        f'<header class="top"><p><strong>mixopt</strong> {escape(name)}</p>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
    )


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("mixopt.reporting") / "assets" / name).read_text(encoding="utf-8")
