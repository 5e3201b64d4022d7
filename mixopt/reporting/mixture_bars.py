"""The mixture of the answer as a table with bars: each domain's share against its natural one.

A bar is the share, and a line across it the natural share. With groups in the configuration there
is a second table, of groups that unfold to their domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mixopt.reporting.answer import Answer
from mixopt.reporting.page import cell
from mixopt.run_directory import Run
from mixopt.system import share_text, short_count

FEW = 12  # domains that are ordered by share; more are by how far they move
OTHERS = "in no group"


def mixture_panel(run: Run, found: Answer) -> str:
    """Return the panel of the mixture."""
    groups = _groups(run, found)
    key = f'<span class="key"><span><i></i>{found.called}</span><span><b></b>natural</span></span>'
    views = ""
    if groups:
        buttons = "".join(
            f'<button type="button" value="by-{name}">{name}</button>'
            for name in ("domains", "groups")
        )
        views = f'<span class="views" role="group" aria-label="Rows" hidden>{buttons}</span>'
    title = f'<div class="headed"><h2>Share of the training tokens</h2>{views}</div>'
    body = f'<div id="by-domains">{_table(found, _domains(found), key, "sortable")}</div>'
    if groups:
        body += f'<div id="by-groups">{_table(found, groups, key, "grouped")}</div>'
    note = ""
    if found.epochs is not None and run.config.propose.target_tokens:
        length = short_count(run.config.propose.target_tokens)
        note = f'<p class="soft">Epochs are of a run of {length} tokens.</p>'
    return f'<div class="panel mix">{title}{body}{note}</div>\n'


def by_change(found: Answer) -> list[str]:
    """Return the domains, those that move most first; few of them by their share."""
    natural, names = found.natural, list(found.mixture)
    if len(names) <= FEW:
        return sorted(names, key=lambda name: -found.mixture[name])
    return sorted(names, key=lambda name: -abs(found.mixture[name] - natural[name]))


def _domains(found: Answer) -> str:
    rows = "".join(_row(name, [name], found) for name in by_change(found))
    return f"<tbody>{rows}</tbody>"


def _groups(run: Run, found: Answer) -> str:
    """Return the rows of groups, each in a body of its own; nothing without groups."""
    members = {one.name: list(one.domains) for one in run.constraints.groups}
    if not members:
        return ""
    grouped = {name for own in members.values() for name in own}
    rest = [name for name in found.mixture if name not in grouped]
    members |= {OTHERS: rest} if rest else {}
    order = by_change(found)
    ordered = sorted(members.items(), key=lambda item: -_sum(found, item[1]))
    return "".join(
        f"<tbody>{_row(name, own, found, is_group=True)}"
        + "".join(_row(one, [one], found, "member") for one in order if one in own)
        + "</tbody>"
        for name, own in ordered
    )


def _sum(found: Answer, names: Sequence[str]) -> float:
    return sum(found.mixture[name] for name in names)


def _table(found: Answer, bodies: str, key: str, kind: str) -> str:
    head = cell("th", "domain", scope="col")
    head += f'<th class="track text" scope="col">{key}</th>'
    head += cell("th", "natural", scope="col") + cell("th", found.called, scope="col")
    head += cell("th", "change", "moved", "col")
    head += cell("th", "epochs", scope="col") if found.epochs is not None else ""
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead>{bodies}</table>'


def _row(
    name: str, domains: Sequence[str], found: Answer, kind: str = "", *, is_group: bool = False
) -> str:
    now, was = _sum(found, domains), sum(found.natural[one] for one in domains)
    most = max(*found.mixture.values(), *found.natural.values())
    if is_group or kind:
        most = 1.0
    wide = f"--now:{100 * now / most:.4g}%;--was:{100 * was / most:.4g}%"
    if is_group:
        count = f"{len(domains)} domain{'' if len(domains) == 1 else 's'}"
        first = (
            f'<th scope="row" class="group"><button type="button">{escape(name)}'
            f"</button> <small>{count}</small></th>"
        )
    else:
        first = cell("th", name, scope="row")
    cells = f'<td class="track"><span class="bar" style="{wide}"><i></i><b></b></span></td>'
    cells += cell("td", share_text(was)) + cell("td", share_text(now), "share")
    cells += cell("td", _points(now - was), "moved")
    if found.epochs is not None:
        cells += "<td></td>" if is_group else cell("td", f"{found.epochs[name]:.2f}")
    style = f' class="{kind}"' if kind else ""
    return f"<tr{style}>{first}{cells}</tr>"


def _points(change: float) -> str:
    """Write a change of a share, in points of a percentage."""
    return f"{100 * change:+.1f}".replace("-", "\N{MINUS SIGN}")
