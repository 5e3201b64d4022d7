"""The frame of a page: one HTML file with its style, scripts and figures inside.

Nothing is fetched: no font, no script, no image. The page follows the reader's light or dark, is
legible on a narrow screen, prints, and works where scripts do not run. Templates escape every text,
and the Content-Security-Policy allows no request, and no script but those that are written here, by
their hashes: a name that were not escaped could still run nothing.

matplotlib writes an SVG for any program: every text names its fonts, every dot is an element with
its style, and a place has six decimals. A page with sixty domains has thousands of dots, so here
what says nothing is left out: a row of equal dots becomes one path whose subpaths of no length have
round ends, places have two decimals, and only what is referred to has an id.
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
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mixopt.proposals import Interval, named
from mixopt.reporting.figure_style import (
    ACCENT,
    FAINT,
    GRID,
    INK,
    PAPER,
    Figure,
    figure_svg,
)
from mixopt.system import (
    __version__,
    difference_text,
    interval_text,
    share_text,
    write_text,
)

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


def folded(title: str, text: str) -> Markup:
    """Return text that is shown when its title is opened."""
    return _macro("folded", title, text)


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


def gain_word(gain: Interval) -> str:
    """Say what the interval of a gain allows to say."""
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "not significant"


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
        "word": gain_word,
    }
    return made


def _breakable(text: str) -> Markup:
    """Return a name that a narrow column may break after a mark, and nowhere else."""
    return Markup(_MARKS.sub(r"\1<wbr>", str(escape(text))))


# What a page puts in place of the fixed colours, so that figures follow its light or dark.
_PAGE_COLOURS = {
    INK: "currentColor",
    GRID: "var(--line)",
    FAINT: "var(--faint)",
    PAPER: "var(--paper)",
    ACCENT: "var(--accent)",
}
_SPACE, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d*\.\d+")
_REFERENCE = re.compile(r"^#(.+)$|url\(#([^)]*)\)")
_PLACES = ("d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "transform")
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # not even escaped


class Pictures:
    """Keeps each figure of a page as a file, and gives it as an element of the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def show(self, name: str, drawn: Figure, description: str) -> Markup:
        """Write the figure to `<name>.svg`; return it with its description."""
        svg = figure_svg(drawn)
        write_text(self._folder / f"{name}.svg", svg)
        element = Markup(page_svg(svg, name, description))
        return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(element, description)


def page_svg(svg: str, name: str, description: str) -> str:
    """Return a figure as an element of a page, in the page's colours and letters."""
    root = ElementTree.fromstring(_NO_XML.sub("", svg))
    for parent in list(root.iter()):
        _strip(parent)
    _join_dots(root)
    _number_ids(root, name)
    for element in root.iter():
        _shorten(element)
    own = {"role": "img", "aria-label": description}
    own |= {key: root.attrib[key] for key in ("width", "height", "viewBox")}
    root.attrib.clear()
    root.attrib |= own | {"style": "stroke-linejoin:round;font-family:var(--letters)"}
    return ElementTree.tostring(root, encoding="unicode")


def _strip(parent: Element) -> None:
    """Take away what the page does not need: metadata, style sheets, blanks, name spaces."""
    parent.tag = parent.tag.removeprefix(_SPACE)
    for child in list(parent):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            parent.remove(child)
    if parent.tag != "text":
        parent.text = None
    for child in parent:
        child.tail = None
    if _LINK in parent.attrib:
        parent.set("href", parent.attrib.pop(_LINK))


def _join_dots(root: Element) -> None:
    """Make one path of the dots of a group, where all are equal circles without an edge."""
    radii = {}
    for drawn in (path for one in root.iter("defs") for path in one.iter("path")):
        words = drawn.get("d", "").split()
        if words[:2] == ["M", "0"] and words.count("C") == 8:  # as matplotlib draws a circle
            radii[drawn.get("id", "")] = abs(float(words[2]))
    for group in root.iter("g"):
        dots = list(group)
        looks = {(dot.tag, dot.get("href", "")[1:], dot.get("style", "")) for dot in dots}
        if len(looks) != 1:
            continue
        tag, marker, style = looks.pop()
        if tag != "use" or marker not in radii or "stroke" in style:
            continue
        places = "".join(f"M{_short(d.get('x', '0'))} {_short(d.get('y', '0'))}h0" for d in dots)
        look = f"{style.replace('fill', 'stroke')}; stroke-width: {2 * radii[marker]:.3g}"
        round_ends = {"d": places, "style": f"{look}; stroke-linecap: round; fill: none"}
        group[:] = [Element("path", round_ends)]


def _number_ids(root: Element, name: str) -> None:
    """Keep the ids that are referred to, and make them the page's own."""
    used: dict[str, str] = {}
    for element in root.iter():
        for found in (_REFERENCE.search(value) for value in element.attrib.values()):
            if found is not None:
                used.setdefault(found[1] or found[2], f"{name}-{len(used)}")
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", used[own])
        for key, value in element.attrib.items():
            found = _REFERENCE.search(value)
            if found is not None:
                old = found[1] or found[2]
                element.set(key, value.replace(f"#{old}", f"#{used[old]}"))
    for defs in root.iter("defs"):
        defs[:] = [child for child in defs if child.tag != "path" or "id" in child.attrib]


def _shorten(element: Element) -> None:
    """Write the attributes of an element short, and in the page's colours."""
    for key in _PLACES:
        if key in element.attrib and "scale" not in element.attrib[key]:
            element.set(key, _short(element.attrib[key]))
    if "d" in element.attrib:
        element.set("d", re.sub(r"\s*([A-Za-z])\s*", r"\1", element.attrib["d"]).strip())
    if "style" in element.attrib:
        parts = [part.strip() for part in element.attrib["style"].split(";")]
        parts = [re.sub(r"^font: ([\d.]+px) .*", r"font-size: \1", part) for part in parts]
        text = ";".join(part.replace(": ", ":") for part in parts if "font-family" not in part)
        for fixed, variable in _PAGE_COLOURS.items():
            text = text.replace(fixed, variable)
        element.set("style", text)


def _short(text: str) -> str:
    """Return places with two decimals at most."""
    return _NUMBER.sub(lambda one: f"{float(one[0]):.2f}".rstrip("0").rstrip("."), text)
