"""Microanneals in a terminal and on a page: sources ranked on each loss, and what they cost.

A run that went no further than its anneals has a page of its own, `anneals.html`; one that combined
them has the section in its report too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mixopt.objective import UNITS
from mixopt.proposals import Anneals, Effect
from mixopt.reporting.outcome_figures import plot_anneals
from mixopt.reporting.page import Section, bullets, heading, page_html, paragraph, table, template
from mixopt.reporting.page_figures import Pictures
from mixopt.reporting.tables import table_text
from mixopt.run_directory import Run
from mixopt.system import (
    difference_text,
    interval_text,
    share_text,
    short_count,
    wrapped,
    write_text,
)
from mixopt.trials import source_epochs

MAX_TARGETS = 6  # that the terminal's table has
PAGE = "anneals.html"
# What the runs of one seed share, by proxy (docs/anneals.md has the same as a table).
SHARED = {
    "decoder": "begin with the same weights and read the same base text in the same order",
    "continued": "begin with the checkpoint, as all others do, and read the same base text in the"
    " same order",
    "ngram": "share what the proxy draws from the seed",
    "command": "are given the same seed; how far that pairs them is up to the trainer",
}
OF_OTHERS = "are given the same seed; how far that pairs them is up to the proxy"
EFFECT_COLUMNS = ("source", "change", "95% interval", "p (Holm)", "seeds", "verdict")


def anneals_text(run: Run) -> str:
    """Return the tables of a run of microanneals for a terminal."""
    found, length = run.anneals, short_count(run.config.proxy.tokens)
    unit, of_seeds = UNITS[found.objective.value_unit], _of_seeds(run)
    by_source = {one.source: one for one in found.effects()}
    title = (
        f"{found.objective.describe()}, {unit}: {found.share:.0%} of a source - base alone;"
        " below 0 is better"
    )
    effects = [(name, *_cells(by_source.get(name))) for name in _ordered(found)]
    margins, against = _guard_margins(run), _guarded_against(run)
    columns, costs = _costs(run, found)
    lines = [
        table_text(title, EFFECT_COLUMNS, effects, texts=("verdict",)),
        *_on_targets(found),
        table_text(_costs_title(run), columns, costs, texts=(columns[1],)),
        *(wrapped(f"warning: {line}") for line in found.problems),
    ]
    for name in _ordered(found):
        broken = ", ".join(found.broken(name, margins))
        if broken:
            lines.append(
                wrapped(f"warning: {name} breaks the guardrail on {broken}, against {against}")
            )
    spent = f"{len(found.trials)} runs of {length} tokens ({of_seeds}): {short_count(found.tokens)}"
    lines += [wrapped(line) for line in (_headline(found), f"{spent} tokens spent")]
    return "\n".join([*lines, f"page: {run.path / PAGE}"])


def anneals_json(run: Run) -> dict[str, Any]:
    """Return a run of microanneals as plain values."""
    found, margins, epochs = run.anneals, _guard_margins(run), _epochs(run)
    costs = {name: found.largest_cost(name) for name in found.sources}
    return {
        "path": str(run.path),
        "page": str(run.path / PAGE),
        **found.to_json(),
        "sources": {
            name: {
                "rank": found.ranks().get(name),
                "ranks": {target: found.ranks(target).get(name) for target in found.targets},
                "largest_cost": None if cost is None else {"loss": cost[0], **cost[1].to_json()},
                "guardrails_broken": list(found.broken(name, margins)),
                "tokens_of_source": _source_tokens(run),
                "epochs": epochs[name],
            }
            for name, cost in costs.items()
        },
    }


def write_anneals(run: Run) -> Path:
    """Write `anneals.html` of a run whose microanneals are trained.

    Returns:
        The page.

    Raises:
        RunError: The run has no microanneals, or they are not trained yet.
    """
    name, path = run.config.name, run.path / PAGE
    first = template("anneals.html", headline=_headline(run.anneals))
    sections = [anneals_section(run, Pictures(run.path / "figures"))]
    write_text(path, page_html(name, f"{name}: microanneals", first, sections))
    return path


def anneals_section(run: Run, pictures: Pictures) -> Section:
    """Show what each source does to the objective, to each target, and to the rest."""
    found = run.anneals
    base = [f"{name} {share_text(weight)}" for name, weight in found.base.items() if weight > 0]
    body = paragraph(
        f"Each source has {share_text(found.share)} of the tokens of its anneals, and the base the"
        f" rest; the control is the base alone ({', '.join(base)}). {len(found.trials)} runs of"
        f" {short_count(run.config.proxy.tokens)} tokens, {short_count(found.tokens)} in all."
    )
    body += paragraph(_paired(run), "soft")
    if found.effects():
        about = (
            "Each source's difference from the control with its 95% interval. Circles: better;"
            " squares: worse; open diamonds: not significant, all sources considered."
        )
        body += pictures.show("anneals", plot_anneals(found), about)
    body += bullets(found.problems) if found.problems else Markup()
    body += _effects(found, None, found.objective.describe())
    columns, rows = _costs(run, found)
    margins = _guard_margins(run)
    if margins:
        columns = (*columns, "guardrails broken")
        rows = [[*row, ", ".join(found.broken(row[0], margins))] for row in rows]
    texts = [1, *([5] if margins else [])]
    caption = (
        "The loss outside the objective that a source makes worst (its own text left out), and"
        f" {_epochs_of(run)}."
    )
    body += heading("What it costs") + table(columns, rows, caption=caption, texts=texts)
    if len(found.targets) > 1:
        body += heading("By target")
        for target in found.targets:
            body += _effects(found, target, target)
    return Section("anneals", "Microanneals", body)


def _headline(found: Anneals) -> str:
    """Say what was compared, in a line."""
    best = found.effects()
    if not best:
        return "No anneal finished together with its control."
    good = [one.source for one in best if one.verdict == "better"]
    if good:
        return f"Better than the base alone on {found.objective.describe()}: {', '.join(good)}."
    if best[0].verdict == "one seed":
        return f"One seed: {best[0].source} has the best change, and nothing says how sure that is."
    return "No source is significantly better than the base alone."


def _paired(run: Run) -> str:
    settings = run.config.design.anneals
    assert settings is not None
    if settings.seeds == 1:
        return "One seed: there are no intervals, and ranks may be those of noise."
    shared = SHARED.get(run.config.proxy.name, OF_OTHERS)
    return (
        f"{settings.seeds} seeds. The anneals and the control of a seed {shared}. The interval is"
        " Student's of one source's paired differences; p-values are Holm's over the sources of a"
        " target."
    )


def _of_seeds(run: Run) -> str:
    settings = run.config.design.anneals
    assert settings is not None
    return "1 seed, so no interval" if settings.seeds == 1 else f"{settings.seeds} seeds, paired"


def _effects(found: Anneals, target: str | None, title: str) -> Markup:
    """Return the table of one loss, the best source first."""
    unit = UNITS[found.objective.value_unit if target is None else found.objective.unit]
    effects = found.effects(target)
    rows = [(one.source, *_cells(one)) for one in effects]
    styles = ["strong" if one.verdict == "better" else "" for one in effects]
    caption = f"{title}, {unit}: source - control; below 0 is better."
    return table(EFFECT_COLUMNS, rows, caption=caption, texts=[5], styles=styles)


def _cells(one: Effect | None) -> tuple[str, str, str, str, str]:
    """Return the change, its interval, its p-value, its pairs and what can be said of it."""
    if one is None:
        return "", "", "", "0", "no pair"
    change, seeds = difference_text(one.mean), str(one.seeds)
    if one.low is None or one.high is None or one.p is None:
        return change, "", "", seeds, one.verdict
    chance = "<0.001" if one.p < 0.001 else f"{one.p:.2g}"
    return change, interval_text(one.low, one.high), chance, seeds, one.verdict


def _on_targets(found: Anneals) -> list[str]:
    """Return changes and ranks on each target, where there are several."""
    targets = found.targets[:MAX_TARGETS]
    if len(found.targets) < 2:
        return []
    ranks = {target: found.ranks(target) for target in targets}
    rows = []
    for name in _ordered(found):
        cells = []
        for target in targets:
            one = found.effect(name, target)
            mark = "" if one is None else {"better": "+", "worse": "-"}.get(one.verdict, "")
            text = "" if one is None else difference_text(one.mean)
            cells.append("" if one is None else f"{text}{mark} ({ranks[target][name]})")
        rows.append((name, *cells))
    more = len(found.targets) - len(targets)
    rest = f"; {more} more targets in --json and the page" if more else ""
    title = (
        f"Change and rank on each target (+ better, - worse, Holm's p < 0.05 within a target{rest})"
    )
    return [table_text(title, ("source", *targets), rows)]


def _costs(run: Run, found: Anneals) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return what each source costs: the loss that it makes worst, its tokens, its epochs."""
    epochs, taken, rows = _epochs(run), short_count(_source_tokens(run)), []
    for name in _ordered(found):
        cost = found.largest_cost(name)
        cells = ("none", "") if cost is None else (cost[0], difference_text(cost[1].mean))
        rows.append([name, *cells, taken, f"{epochs[name]:.2f}"])
    return ("source", "largest loss elsewhere", "change", "its tokens", "epochs"), rows


def _costs_title(run: Run) -> str:
    return f"What it costs: other losses, tokens of the source, {_epochs_of(run)}"


def _epochs_of(run: Run) -> str:
    target = run.config.propose.target_tokens
    if target is None:
        return "epochs of its prepared text in an anneal"
    return f"epochs of it in {short_count(target)} tokens"


def _epochs(run: Run) -> dict[str, float]:
    """Return how often the full run reads each source at its share; a trial if it has no length."""
    settings, target = run.config.design.anneals, run.config.propose.target_tokens
    assert settings is not None
    inventory = run.inventory if target is not None else run.corpus.inventory
    return source_epochs(settings, inventory, target or run.config.proxy.tokens)


def _source_tokens(run: Run) -> int:
    """Return how many tokens of its source one anneal reads, about."""
    return round(run.anneals.share * run.config.proxy.tokens)


def _ordered(found: Anneals) -> list[str]:
    """Return the sources, the best on the objective first, those without an anneal last."""
    ranked = [one.source for one in found.effects()]
    return [*ranked, *(name for name in found.sources if name not in ranked)]


def _guard_margins(run: Run) -> Mapping[str, float]:
    """Return the most by which each guarded loss may be worse than the control's; empty for any.

    Where the reference is the checkpoint, what the control itself loses against it counts too.
    """
    rails = run.constraints.guardrails
    if rails is None:
        return {}
    margins, found = rails.margins(run.objective.evaluation), run.anneals
    if _guarded_against(run) == "the control" or rails.base is None:
        return margins
    lost = {name: found.control_loss(name) - rails.base[name] for name in margins}
    higher = run.objective.higher
    return {n: margin - (-lost[n] if n in higher else lost[n]) for n, margin in margins.items()}


def _guarded_against(run: Run) -> str:
    """Return what guarded losses are compared with, as a sentence has it."""
    rails = run.constraints.guardrails
    of_checkpoint = rails is not None and rails.base is not None and rails.reference == "base"
    return "the checkpoint" if of_checkpoint else "the control"
