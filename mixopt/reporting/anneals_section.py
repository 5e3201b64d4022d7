"""Microanneals on a page: the figure, ranks by target, and what each source costs.

A run that went no further than its anneals has a page of its own, `anneals.html`; one that combined
them has the section in its report too.
"""

from __future__ import annotations

from pathlib import Path

from mixopt import plots
from mixopt.objective import UNITS
from mixopt.proposals import Anneals
from mixopt.reporting.anneals_table import (
    PAGE,
    effect_cells,
    epochs_of,
    epochs_of_sources,
    guard_margins,
    headline,
    ordered_sources,
    tokens_of_source,
)
from mixopt.reporting.page import PageSection, bullets, heading, paragraph, table
from mixopt.reporting.page_frame import page
from mixopt.reporting.pictures import Pictures
from mixopt.run_directory import Run
from mixopt.system import __version__, difference_text, share_text, short_count, write_text

FIGURE = "anneals"
# What the runs of one seed share, by proxy (docs/anneals.md has the same as a table).
SHARED = {
    "decoder": "begin with the same weights and read the same base text in the same order",
    "continued": "begin with the checkpoint, as all others do, and read the same base text in the"
    " same order",
    "ngram": "share what the proxy draws from the seed",
    "command": "are given the same seed; how far that pairs them is up to the trainer",
}
OF_OTHERS = "are given the same seed; how far that pairs them is up to the proxy"


def write_anneals(run: Run) -> Path:
    """Write `anneals.html` of a run whose microanneals are trained.

    Returns:
        The page.

    Raises:
        RunError: The run has no microanneals, or they are not trained yet.
    """
    found, name = run.anneals, run.config.name
    first = (
        f'<section id="answer" aria-labelledby="answer-title"><h1 id="answer-title">Microanneals'
        f"</h1>{paragraph(headline(found))}</section>\n"
    )
    sections = [anneals_section(run, Pictures(run.path / "figures"))]
    ending = f"Made by mixopt {__version__}. This page is one file and asks no server."
    path = run.path / PAGE
    write_text(path, page(name, f"{name}: microanneals", first, sections, ending))
    return path


def anneals_section(run: Run, pictures: Pictures) -> PageSection:
    """Show what each source does to the objective, to each target, and to the rest."""
    found = run.anneals
    body = paragraph(_compared(run, found)) + paragraph(_paired(run), "soft")
    if found.effects():
        drawn = plots.plot_anneals(found)
        about = (
            "Each source's difference from the control with its 95% interval. Circles: better;"
            " squares: worse; open diamonds: not significant, all sources considered."
        )
        body += pictures.show(FIGURE, drawn, about)
    body += bullets(found.problems) if found.problems else ""
    body += _effects(found, None, found.objective.describe())
    body += _costs(run, found)
    several = len(found.targets) > 1
    parts = [_effects(found, target, target) for target in found.targets if several]
    body += heading("By target") + "".join(parts) if parts else ""
    return PageSection(FIGURE, "Microanneals", body)


def _compared(run: Run, found: Anneals) -> str:
    base = [f"{name} {share_text(weight)}" for name, weight in found.base.items() if weight > 0]
    return (
        f"Each source has {share_text(found.share)} of the tokens of its anneals, and the base the"
        f" rest; the control is the base alone ({', '.join(base)}). {len(found.trials)} runs of"
        f" {short_count(run.config.proxy.tokens)} tokens, {short_count(found.tokens)} in all."
    )


def _paired(run: Run) -> str:
    asked = run.config.design.anneals
    assert asked is not None
    if asked.seeds == 1:
        return "One seed: there are no intervals, and ranks may be those of noise."
    shared = SHARED.get(run.config.proxy.name, OF_OTHERS)
    return (
        f"{asked.seeds} seeds. The anneals and the control of a seed {shared}. The interval is"
        " Student's of one source's paired differences; p-values are Holm's over the sources of a"
        " target."
    )


def _effects(found: Anneals, target: str | None, title: str) -> str:
    """Return the table of one loss, the best source first."""
    unit = UNITS[found.objective.value_unit if target is None else found.objective.unit]
    ranked = {one.source: one for one in found.effects(target)}
    rows = [(name, *effect_cells(one)) for name, one in ranked.items()]
    styles = ["strong" if one.verdict == "better" else "" for one in ranked.values()]
    columns = ("source", "change", "95% interval", "p (Holm)", "seeds", "")
    caption = f"{title}, {unit}: source - control; below 0 is better."
    return table(columns, rows, caption=caption, texts=[5], styles=styles)


def _costs(run: Run, found: Anneals) -> str:
    epochs, margins, rows = epochs_of_sources(run), guard_margins(run), []
    taken = short_count(tokens_of_source(run))
    for name in ordered_sources(found):
        cost = found.largest_cost(name)
        cells = ("none", "") if cost is None else (cost[0], difference_text(cost[1].mean))
        broken = ", ".join(found.broken(name, margins)) if margins else ""
        rows.append((name, *cells, taken, f"{epochs[name]:.2f}", broken))
    columns = ("source", "largest loss elsewhere", "change", "its tokens", "epochs", "")
    if margins:
        columns = (*columns[:-1], "guardrails broken")
    caption = (
        f"The loss outside the objective that a source makes worst (its own text left out), and"
        f" {epochs_of(run)}."
    )
    shown = len(columns) if margins else len(columns) - 1
    cut = [row[:shown] for row in rows]
    return heading("What it costs") + table(
        columns[:shown], cut, caption=caption, texts=[1, *([5] if margins else [])]
    )
