"""The first screen of the decision page: the answer, what it gives, what it costs, and the weights.

Warnings have a line on it, and follow below in full: they are read before signing, and do not push
the answer away.
"""

from __future__ import annotations

from html import escape

from mixopt.objective import UNITS
from mixopt.reporting.answer import PageAnswer
from mixopt.reporting.gain_panels import cost_panel, gain_panel
from mixopt.reporting.mixture_bars import mixture_panel
from mixopt.reporting.page import bullets, folded_list, paragraph
from mixopt.reporting.weight_copies import copy_panel
from mixopt.run_directory import Run
from mixopt.system import without_folders

LIMITS = 4  # active constraints that are named at once


def answer_section(run: Run, found: PageAnswer) -> str:
    """Return the first section, with the page's `h1`."""
    goal = f"Minimises {run.objective.describe()}, in {UNITS[run.objective.value_unit]}."
    badge = f'<span class="badge {found.tone}">{escape(found.label)}</span>'
    left = mixture_panel(run, found) + copy_panel(run, found.mixture)
    right = gain_panel(run, found) + cost_panel(run, found)
    return (
        '<section id="answer" aria-labelledby="answer-title">\n'
        f'<h1 id="answer-title">{escape(found.sentence)}</h1>\n'
        f'<p class="verdict">{badge}{escape(found.why)}</p>\n'
        f'<div class="under">{_pointer(found)}{paragraph(goal, "goal")}</div>'
        f'<div class="split"><div>{left}</div><div>{right}</div></div>\n'
        f"{_before(found)}</section>\n"
    )


def _pointer(found: PageAnswer) -> str:
    """Return the line that says how many warnings there are."""
    parts = [_count(len(found.warnings), "warning"), _count(len(found.limits), "active constraint")]
    said = " and ".join(part for part in parts if part)
    if not said:
        return ""
    return f'<p class="before"><a href="#before">Before you train on it: {said}</a></p>\n'


def _before(found: PageAnswer) -> str:
    """Return the warnings in full, and below them the active constraints."""
    lines = [without_folders(_capital(line)) for line in found.warnings]
    few, more = found.limits[:LIMITS], found.limits[LIMITS:]
    if few:
        lines.append(f"Active constraints: {', '.join(few)}")
    if not lines:
        return ""
    body = bullets(line if line.endswith(".") else f"{line}." for line in lines)
    if more:
        body += folded_list(f"{len(more)} more active constraints", more)
    return f'<div id="before"><h2>Before you train on it</h2>{body}</div>\n'


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
