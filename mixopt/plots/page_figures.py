"""A figure as an element of the page: in the page's colours and letters, and small.

matplotlib writes an SVG for any program: every text names its fonts, every dot is an element with
its style, and a place has six decimals. A page with sixty domains has thousands of dots, so here
what says nothing is left out: a row of equal dots becomes one path whose subpaths of no length have
round ends, places have two decimals (a hundredth of a point is not seen), and only what is referred
to has an id. Dots of one path do not darken each other where they overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from mixopt.plots.figure_style import COLOURS, FAINT, GRID, INK, PAPER

# What a page puts in place of the fixed colours, so that figures follow its light or dark.
_PAGE_COLOURS = {
    INK: "currentColor",
    GRID: "var(--line)",
    FAINT: "var(--faint)",
    PAPER: "var(--paper)",
    COLOURS["proposal"]: "var(--accent)",
}
_SPACE, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d*\.\d+")
_PLACES = ("d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "transform")
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # not even escaped
_ARCS = 8  # curves of which matplotlib makes a circle


def page_svg(svg: str, name: str, description: str) -> str:
    """Return a figure as an element of a page, in the page's colours and letters.

    Args:
        svg: What `figure_svg` returned.
        name: A name that no other figure of the page has.
        description: What it shows, for those who do not see it, as plain text.
    """
    root = ElementTree.fromstring(_NO_XML.sub("", svg))
    for parent in list(root.iter()):
        _bare(parent)
    _join_dots(root)
    _number_ids(root, name)
    for element in root.iter():
        _shorten(element)
    _unwrap(root)
    own = {"role": "img", "aria-label": description}
    own |= {key: root.attrib[key] for key in ("width", "height", "viewBox")}
    root.attrib.clear()
    root.attrib |= own | {"style": "stroke-linejoin:round;font-family:var(--letters)"}
    return ElementTree.tostring(root, encoding="unicode")


def _bare(parent: Element) -> None:
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
    radii = dict(_circles(root))
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
        for dot in dots:
            group.remove(dot)
        round_ends = {"d": places, "style": f"{look}; stroke-linecap: round; fill: none"}
        group.append(Element("path", round_ends))


def _circles(root: Element) -> Iterator[tuple[str, float]]:
    """Yield the id and the radius of each marker that is a circle around its place."""
    for drawn in (path for one in root.iter("defs") for path in one.iter("path")):
        words = drawn.get("d", "").split()
        if words[:2] == ["M", "0"] and words.count("C") == _ARCS:
            yield drawn.get("id", ""), abs(float(words[2]))


def _number_ids(root: Element, name: str) -> None:
    """Keep the ids that are referred to, and make them the page's own."""
    used: dict[str, str] = {}
    for element in root.iter():
        for value in element.attrib.values():
            for found in re.findall(r"^#(.+)$|url\(#([^)]*)\)", value):
                used.setdefault(found[0] or found[1], f"{name}-{len(used)}")
    for parent in list(root.iter()):
        for child in list(parent):
            own = child.get("id")
            if own in used:
                child.set("id", used[own])
            elif own is not None:
                del child.attrib["id"]
                if parent.tag == "defs":
                    parent.remove(child)
        for key, value in parent.attrib.items():
            if key == "href" and value[1:] in used:
                parent.set(key, f"#{used[value[1:]]}")
            elif "url(#" in value:
                parent.set(key, re.sub(r"url\(#([^)]*)\)", lambda m: f"url(#{used[m[1]]})", value))


def _shorten(element: Element) -> None:
    """Write the attributes of an element short, and in the page's colours."""
    for key in _PLACES:
        if key in element.attrib and "scale" not in element.attrib[key]:
            element.set(key, _short(element.attrib[key]))
    if "d" in element.attrib:
        drawn = re.sub(r"\s*([A-Za-z])\s*", r"\1", element.attrib["d"]).strip()
        # Only the first place of a line needs its letter.
        element.set("d", re.sub(r"(?<=L)[^A-Za-z]+(?:L[^A-Za-z]+)+", _joined, drawn))
    if re.match(r"rotate\(-?0[ )]", element.get("transform", "")):
        del element.attrib["transform"]
    if "style" in element.attrib:
        element.set("style", _page_style(element.attrib["style"]))


def _joined(line: re.Match[str]) -> str:
    return line[0].replace("L", " ")


def _short(text: str) -> str:
    """Return places with two decimals at most."""
    return _NUMBER.sub(lambda one: f"{float(one[0]):.2f}".rstrip("0").rstrip("."), text)


def _page_style(style: str) -> str:
    parts = [part.strip() for part in style.split(";")]
    parts = [re.sub(r"^font: ([\d.]+px) .*", r"font-size: \1", part) for part in parts]
    text = ";".join(part.replace(": ", ":") for part in parts if "font-family" not in part)
    for fixed, variable in _PAGE_COLOURS.items():
        text = text.replace(fixed, variable)
    return text


def _unwrap(parent: Element) -> None:
    """Put the children of groups that say nothing in their place."""
    for child in parent:
        _unwrap(child)
    kept: list[Element] = []
    for child in parent:
        is_plain = child.tag in ("g", "defs") and not child.attrib
        kept += list(child) if is_plain and (child.tag == "g" or not len(child)) else [child]
    parent[:] = kept
