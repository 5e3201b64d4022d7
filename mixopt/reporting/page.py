"""The frame of a page: one HTML file with its style, scripts and figures inside.

The page loads no font, script or image. It follows light and dark mode, fits narrow screens,
prints, and works without scripts. Templates escape all text, and the Content-Security-Policy
forbids requests and all scripts except ours, by their hashes, so that even an unescaped name could
not run code.

matplotlib's SVG is verbose: every text names its fonts, every dot is an element with a style, and
coordinates have six decimals. A page with sixty domains has thousands of dots. So SVG is compacted
here: a row of equal dots becomes one path of zero-length subpaths with round caps, coordinates have
two decimals, and unused ids are removed.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mixopt.difference import unit_text
from mixopt.proposals import named
from mixopt.reporting.figure_style import ACCENT, FAINT, GRID, INK, PAPER
from mixopt.system import __version__, share_text

_MARKS = re.compile(r"([_/.:-])(?=[^\W_])")  # characters after which a line may break
# CSS variables that replace fixed colours, so that figures follow light and dark mode.
_PAGE_COLOURS = {
    INK: "currentColor",
    GRID: "var(--line)",
    FAINT: "var(--faint)",
    PAPER: "var(--paper)",
    ACCENT: "var(--accent)",
}
# Not allowed in XML, even escaped.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NEEDLESS = re.compile("<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)
_REFERENCE = re.compile(r'(href="#|url\(#)([^")]+)')
_NUMBER = re.compile(r"-?\d*\.\d+")


@dataclass(frozen=True)
class Section:
    """A section of a page: anchor, heading, markup, and its own CSS and JavaScript."""

    name: str
    title: str
    body: Markup
    style: str = ""
    script: str = ""


def page_html(name: str, title: str, first: Markup, sections: Sequence[Section]) -> str:
    """Return the HTML of a page."""
    scripts = [asset("page.js")]
    scripts += [part.script for part in sections if part.script]
    hashes = " ".join(_script_hash(text) for text in scripts)
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


def _script_hash(script: str) -> str:
    """Return a script's hash as a Content-Security-Policy names it."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def template(file: str, /, **values: Any) -> Markup:
    """Render a template of `assets`; all text is escaped."""
    return Markup(_environment().get_template(file).render(values))


def part(name: str, *values: Any, **options: Any) -> Markup:
    """Render a macro of assets/parts.html: paragraph, heading, folded or table."""
    macro = getattr(_environment().get_template("parts.html").module, name)
    element: Markup = macro(*values, **options)
    return element


def json_text(content: Any) -> Markup:
    """Return plain values as JSON that cannot end its `script` element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":  # occur in strings only
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def asset(name: str) -> str:
    """Return a file of `assets`."""
    return (files("mixopt.reporting") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    loader = PackageLoader("mixopt.reporting", "assets")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "breakable": _breakable,
        "in_words": unit_text,
        "json": json_text,
        "named": named,
        "share": share_text,
        "tone": lambda word: {"better": "good", "worse": "bad"}.get(word, ""),
    }
    return environment


def _breakable(text: str) -> Markup:
    """Return a name with break opportunities after punctuation only."""
    return Markup(_MARKS.sub(r"\1<wbr>", str(escape(text))))


def page_svg(svg: str, name: str, description: str) -> str:
    """Return a figure as inline SVG in the page's colours and fonts."""
    head, _, body = _NEEDLESS.sub("", _NO_XML.sub("", svg[svg.index("<svg") :])).partition(">")
    body = _with_joined_dots(re.sub(r">\s+<", "><", body.strip()))
    ids: dict[str, str] = {}
    for _, reference in _REFERENCE.findall(body):
        ids.setdefault(reference, f"{name}-{len(ids)}")
    body = re.sub(
        '<path id="([^"]*)"[^>]*/>', lambda match: match[0] if match[1] in ids else "", body
    )
    body = re.sub("<[^>]+>", lambda match: _short_tag(match[0], ids), body)
    size = " ".join(re.findall(r'\b(?:width|height|viewBox)="[^"]*"', head))
    look = "stroke-linejoin:round;font-family:var(--letters)"
    return f'<svg role="img" aria-label="{escape(description)}" {size} style="{look}">{body}'


def _with_joined_dots(body: str) -> str:
    """Merge the dots of a group into one path if all are equal circles without an edge."""
    # matplotlib's circle: eight curves, the first from (0, radius).
    circles = re.findall('<path id="([^"]*)" d="M 0 ([^ ]*) ([^"]*)"', body)
    radii = {
        marker_id: abs(float(radius)) for marker_id, radius, rest in circles if rest.count("C") == 8
    }

    def joined(group: re.Match[str]) -> str:
        dots = re.findall('href="#([^"]*)" x="([^"]*)" y="([^"]*)" style="([^"]*)"', group[2])
        looks = {(marker, style) for marker, _, _, style in dots}
        if len(looks) != 1 or len(dots) != group[2].count("<use"):
            return group[0]
        ((marker, style),) = looks
        if marker not in radii or "stroke" in style:
            return group[0]
        places = "".join(f"M{x} {y}h0" for _, x, y, _ in dots)
        look = f"{style.replace('fill', 'stroke')}; stroke-width: {2 * radii[marker]:.3g}"
        return (
            f'{group[1]}<path d="{places}" style="{look}; stroke-linecap: round; fill: none"/></g>'
        )

    return re.sub("(<g[^>]*>)((?:<use [^>]*/>)+)</g>", joined, body)


def _short_tag(tag: str, ids: Mapping[str, str]) -> str:
    """Return a tag with the page's ids and colours, and coordinates of two decimals."""
    tag = re.sub("xlink:|font-family: [^;]*; ", "", tag)
    tag = re.sub(r"\bfont: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)  # matplotlib before 3.10
    tag = re.sub(
        ' id="([^"]*)"', lambda match: f' id="{ids[match[1]]}"' if match[1] in ids else "", tag
    )
    tag = _REFERENCE.sub(lambda match: match[1] + ids[match[2]], tag)
    if "scale" not in tag:
        tag = _NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), tag)
    for fixed, variable in _PAGE_COLOURS.items():
        tag = tag.replace(fixed, variable)
    return tag
