"""The frame of a report: one HTML file with its style inside, and the elements it is made of.

Nothing is fetched: no font, no script, no image. The page follows the reader's light or dark,
is legible on a narrow screen and prints. Every text is escaped here, so that a domain may have
any name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from mixopt.plots import page_svg

STYLE = """
:root{color-scheme:light dark;--paper:#fefefe;--ink:#1c2128;--soft:#57606a;--faint:#8a929c;
--line:#d8dde3;--tint:#f3f5f8;--accent:#0072b2;--good:#00795a;--bad:#b3400a;
--letters:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e4e8ec;--soft:#a3acb6;
--faint:#7d8690;--line:#323941;--tint:#1d232a;--accent:#5bb4e5;--good:#3fbf95;--bad:#ee8f5c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--letters)}
main{max-width:62rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .2rem}
h2{font-size:1.25rem;margin:2.8rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.6rem 0 .3rem}
p{margin:.5rem 0 .8rem;max-width:46rem}
a{color:var(--accent)}
.soft,figcaption,caption{color:var(--soft);font-size:.9rem}
nav{font-size:.9rem;margin:.6rem 0 1.4rem;display:flex;flex-wrap:wrap;gap:.2rem 1rem}
.verdict{font-size:1.1rem;padding:.7rem 1rem;background:var(--tint);
border-left:4px solid var(--faint);margin:1rem 0 1.2rem;max-width:none}
.verdict.good{border-color:var(--good)}.verdict.bad{border-color:var(--bad)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;
margin:1rem 0 1.4rem;padding:0}
.facts div{border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem}
.facts dt{color:var(--soft);font-size:.85rem}
.facts dd{margin:0;font-size:1.3rem;font-variant-numeric:tabular-nums}
.facts small{display:block;color:var(--soft);font-size:.8rem;line-height:1.35}
.wide{overflow-x:auto;margin:.6rem 0 1.2rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;width:100%}
caption{text-align:left;padding-bottom:.3rem}
th,td{padding:.32rem .7rem;text-align:right;border-bottom:1px solid var(--line);
white-space:nowrap}
th{white-space:normal;font-weight:600;border-bottom-color:var(--faint);vertical-align:bottom}
th:first-child,td:first-child,.text{text-align:left}
td:first-child{padding-left:.2rem}th:first-child{padding-left:.2rem}
tr.strong td{font-weight:600}tr.weak td{color:var(--soft)}
td.text{white-space:normal;min-width:9rem}
figure{margin:1rem 0 1.4rem;overflow-x:auto}
figure svg{display:block;width:100%;min-width:34rem;height:auto}
ul{padding-left:1.2rem}
details{margin:.6rem 0}summary{cursor:pointer}
pre{background:var(--tint);padding:.8rem;overflow-x:auto;font-size:.8rem;line-height:1.45}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--faint:#666;
--line:#ccc;--tint:#f4f4f4}
nav{display:none}main{max-width:none;padding:0}figure,table,.facts{break-inside:avoid}
h2,h3{break-after:avoid}figure svg{min-width:0}.wide,figure{overflow:visible}}
"""


@dataclass(frozen=True)
class PageSection:
    """A part of the page; `body` is markup that the functions below made."""

    name: str
    title: str
    body: str


def page(title: str, subtitle: str, lead: str, sections: Sequence[PageSection]) -> str:
    """Return the whole file.

    Args:
        title: What the page is about.
        subtitle: A line under it.
        lead: Markup before the first section.
        sections: What follows, each with a link at the top.
    """
    links = "".join(f'<a href="#{part.name}">{escape(part.title)}</a>' for part in sections)
    body = "".join(
        f'<section id="{part.name}"><h2>{escape(part.title)}</h2>{part.body}</section>\n'
        for part in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>\n"
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p></header>\n'
        f"<nav>{links}</nav>\n{lead}{body}</main></body></html>\n"
    )


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph."""
    return f'<p class="{style}">{escape(text)}</p>\n' if style else f"<p>{escape(text)}</p>\n"


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def bullets(lines: Iterable[str]) -> str:
    """Return a list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>\n"


def facts(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return boxes of a name, a value and a remark each."""
    boxes = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(remark)}</small></dd></div>"
        for name, value, remark in entries
    )
    return f'<dl class="facts">{"".join(boxes)}</dl>\n'


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    texts: Sequence[int] = (),
    styles: Sequence[str] = (),
) -> str:
    """Return a table.

    Args:
        columns: Names of the columns; the first is text, others are numbers.
        rows: Cells, as they are to be shown.
        caption: What the table holds.
        texts: Positions of further columns of text.
        styles: Of each row: `strong`, `weak` or nothing; all plain when empty.
    """
    kinds = ["text" if place in texts else "" for place in range(len(columns))]
    head = "".join(_cell("th", name, kind) for name, kind in zip(columns, kinds, strict=True))
    lines = []
    for number, row in enumerate(rows):
        style = styles[number] if styles else ""
        cells = "".join(_cell("td", text, kind) for text, kind in zip(row, kinds, strict=True))
        lines.append(f'<tr class="{style}">{cells}</tr>' if style else f"<tr>{cells}</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="wide"><table>{title}{body}</table></div>\n'


def figure(svg: str, name: str, description: str) -> str:
    """Return a figure, as `figure_svg` gives it, with its description below."""
    svg = page_svg(svg, name, escape(description))
    return f"<figure>{svg}<figcaption>{escape(description)}</figcaption></figure>\n"


def folded(title: str, text: str) -> str:
    """Return text that is shown when its title is opened."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>\n"


def _cell(element: str, text: str, kind: str) -> str:
    style = f' class="{kind}"' if kind else ""
    return f"<{element}{style}>{escape(text)}</{element}>"
