"""The mixture of the answer as a table with bars: each domain's share against its natural one.

A bar is the share, and a line across it the natural share. With groups in the configuration there
is a second table, of groups that unfold to their domains.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.reporting.answer import PageAnswer
from mixopt.reporting.page import breakable, cell
from mixopt.run_directory import Run
from mixopt.system import share_text, short_count

FEW = 12  # domains that are ordered by share; more are by how far they move
OTHERS = "in no group"


def mixture_panel(run: Run, found: PageAnswer) -> str:
    """Return the panel of the mixture."""
    groups = _groups(run, found)
    key = f'<span class="key"><span><i></i>{found.called}</span><span><b></b>natural</span></span>'
    epochs = ""
    if found.epochs is not None and run.config.propose.target_tokens:
        epochs = f" (epochs in {short_count(run.config.propose.target_tokens)})"
    title = f"<h2>Share of training tokens<span>{epochs}</span></h2>"
    body = f'<div id="by-domains">{_table(found, _domains(found), "sortable")}</div>'
    if groups:
        body += f'<div id="by-groups">{_table(found, groups, "grouped")}</div>'
        body += '<div class="tools"><button type="button" class="more" hidden>Groups</button></div>'
    else:
        body += '<div class="tools"></div>'
    return f'<div class="panel mix"><div class="headed">{title}{key}</div>{body}</div>\n'


def by_change(found: PageAnswer) -> list[str]:
    """Return the domains, those that move most first; few of them by their share."""
    natural, names = found.natural, list(found.mixture)
    if len(names) <= FEW:
        return sorted(names, key=lambda name: -found.mixture[name])
    return sorted(names, key=lambda name: -abs(found.mixture[name] - natural[name]))


def _domains(found: PageAnswer) -> str:
    rows = "".join(_row(name, [name], found) for name in by_change(found))
    return f"<tbody>{rows}</tbody>"


def _groups(run: Run, found: PageAnswer) -> str:
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


def _sum(found: PageAnswer, names: Sequence[str]) -> float:
    return sum(found.mixture[name] for name in names)


def _table(found: PageAnswer, bodies: str, kind: str) -> str:
    head = cell("th", "domain", scope="col")
    head += '<td class="track"></td>'
    head += cell("th", "natural", scope="col") + cell("th", found.called, scope="col")
    head += cell("th", "change", "moved", "col")
    head += cell("th", "epochs", "moved", "col") if found.epochs is not None else ""
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead>{bodies}</table>'


def _row(
    name: str, domains: Sequence[str], found: PageAnswer, kind: str = "", *, is_group: bool = False
) -> str:
    now, was = _sum(found, domains), sum(found.natural[one] for one in domains)
    most = max(*found.mixture.values(), *found.natural.values())
    if is_group or kind:
        most = 1.0
    wide = f"--now:{100 * now / most:.4g}%;--was:{100 * was / most:.4g}%"
    if is_group:
        count = f"{len(domains)} domain{'' if len(domains) == 1 else 's'}"
        first = f'<th scope="row" class="group">{breakable(name)} <small>{count}</small></th>'
    else:
        first = cell("th", name, scope="row")
    cells = f'<td class="track"><span class="bar" style="{wide}"><i></i><b></b></span></td>'
    cells += cell("td", share_text(was)) + cell("td", share_text(now), "share")
    cells += cell("td", _points(now - was), "moved")
    if found.epochs is not None:
        cells += cell("td", "" if is_group else _passes(found.epochs[name]), "moved")
    style = f' class="{kind}"' if kind else ""
    return f"<tr{style}>{first}{cells}</tr>"


def _points(change: float) -> str:
    """Write a change of a share, in points of a percentage."""
    return f"{100 * change:+.1f}".replace("-", "\N{MINUS SIGN}")


def _passes(epochs: float) -> str:
    """Write passes over a domain."""
    return "<0.01" if 0 < epochs < 0.005 else f"{epochs:.2f}"
