"""Microanneals for a terminal: sources ranked on the objective and each target, and their costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixopt.objective import UNITS
from mixopt.proposals import Anneals, Effect
from mixopt.reporting.text_table import table_text
from mixopt.run_directory import Run
from mixopt.system import difference_text, interval_text, short_count, wrapped
from mixopt.trials import source_epochs

SHOWN = 6  # targets that the terminal's table has
BETTER, WORSE = "+", "-"  # marks of what is significant, all sources considered
PAGE = "anneals.html"


def anneals_text(run: Run) -> str:
    """Return the tables of a run of microanneals, 80 columns wide."""
    found = run.anneals
    lines = [_on_objective(found), _on_targets(found), _costs(run, found)]
    lines += [wrapped(f"warning: {line}") for line in (*found.problems, *_guards(run, found))]
    lines += [wrapped(line) for line in _notes(run, found)]
    return "\n".join(line for line in lines if line)


def anneals_json(run: Run) -> dict[str, Any]:
    """Return a run of microanneals as plain values."""
    found, margins = run.anneals, guard_margins(run)
    costs = {name: found.largest_cost(name) for name in found.sources}
    epochs, taken = epochs_of_sources(run), tokens_of_source(run)
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
                "tokens_of_source": taken,
                "epochs": epochs[name],
            }
            for name, cost in costs.items()
        },
    }


def ordered_sources(found: Anneals) -> list[str]:
    """Return the sources, the best on the objective first, those without an anneal last."""
    ranked = [one.source for one in found.effects()]
    return [*ranked, *(name for name in found.sources if name not in ranked)]


def epochs_of_sources(run: Run) -> dict[str, float]:
    """Return how often the full run reads each source at its share; a trial if it has no length."""
    asked, target = run.config.design.anneals, run.config.propose.target_tokens
    assert asked is not None
    inventory = run.inventory if target is not None else run.corpus.inventory
    return source_epochs(asked, inventory, target or run.config.proxy.tokens)


def tokens_of_source(run: Run) -> int:
    """Return how many tokens of its source one anneal reads, about."""
    return round(run.anneals.share * run.config.proxy.tokens)


def guard_margins(run: Run) -> Mapping[str, float]:
    """Return the most by which each guarded loss may be worse than the control's; empty for any.

    Where the reference is the checkpoint, what the control itself loses against it counts too.
    """
    rails = run.constraints.guardrails
    if rails is None:
        return {}
    margins, found = rails.margins(run.objective.evaluation), run.anneals
    if rails.base is None or rails.reference != "base":
        return margins
    lost = {name: found.control_loss(name) - rails.base[name] for name in margins}
    higher = run.objective.higher
    return {n: margin - (-lost[n] if n in higher else lost[n]) for n, margin in margins.items()}


def guarded_against(run: Run) -> str:
    """Return what guarded losses are compared with, as a sentence has it."""
    rails = run.constraints.guardrails
    of_checkpoint = rails is not None and rails.base is not None and rails.reference == "base"
    return "the checkpoint" if of_checkpoint else "the control"


def effect_cells(one: Effect | None) -> tuple[str, str, str, str, str]:
    """Return the change, its interval, its p-value, its pairs and what can be said of it."""
    if one is None:
        return "", "", "", "0", "no pair"
    change, seeds = difference_text(one.mean), str(one.seeds)
    if one.low is None or one.high is None or one.p is None:
        return change, "", "", seeds, one.verdict
    return change, interval_text(one.low, one.high), chance_text(one.p), seeds, one.verdict


def chance_text(p: float) -> str:
    """Return a p-value with two digits, or as below a thousandth."""
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def headline(found: Anneals) -> str:
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


def _on_objective(found: Anneals) -> str:
    unit = UNITS[found.objective.value_unit]
    title = (
        f"{found.objective.describe()}, {unit}: {found.share:.0%} of a source - base alone;"
        " below 0 is better"
    )
    by_source = {one.source: one for one in found.effects()}
    rows = [(name, *effect_cells(by_source.get(name))) for name in ordered_sources(found)]
    columns = ("source", "change", "95% interval", "p (Holm)", "seeds", "verdict")
    return table_text(title, columns, rows, texts=("verdict",))


def _on_targets(found: Anneals) -> str:
    """Return changes and ranks on each target, where there are several."""
    targets = found.targets[:SHOWN]
    if len(found.targets) < 2:
        return ""
    ranks = {target: found.ranks(target) for target in targets}
    rows = []
    for name in ordered_sources(found):
        cells = [_ranked(found.effect(name, target), ranks[target]) for target in targets]
        rows.append((name, *cells))
    more = len(found.targets) - len(targets)
    rest = f"; {more} more targets in --json and the page" if more else ""
    title = (
        f"Change and rank on each target ({BETTER} better, {WORSE} worse, Holm's p < 0.05 within a"
        f" target{rest})"
    )
    return table_text(title, ("source", *targets), rows)


def _ranked(one: Effect | None, ranks: Mapping[str, int]) -> str:
    if one is None:
        return ""
    mark = {"better": BETTER, "worse": WORSE}.get(one.verdict, "")
    return f"{difference_text(one.mean)}{mark} ({ranks[one.source]})"


def _costs(run: Run, found: Anneals) -> str:
    """Return what each source costs: the loss that it makes worst, its tokens, its epochs."""
    epochs, rows = epochs_of_sources(run), []
    taken = short_count(tokens_of_source(run))
    for name in ordered_sources(found):
        cost = found.largest_cost(name)
        cells = ("none", "") if cost is None else (cost[0], difference_text(cost[1].mean))
        rows.append((name, *cells, taken, f"{epochs[name]:.2f}"))
    columns = ("source", "largest loss elsewhere", "change", "its tokens", "epochs")
    title = f"What it costs: other losses, tokens of the source, {epochs_of(run)}"
    return table_text(title, columns, rows, texts=(columns[1],))


def epochs_of(run: Run) -> str:
    """Say what the epochs of sources are of."""
    target = run.config.propose.target_tokens
    if target is None:
        return "epochs of its prepared text in an anneal"
    return f"epochs of it in {short_count(target)} tokens"


def _guards(run: Run, found: Anneals) -> list[str]:
    margins = guard_margins(run)
    broken = {name: found.broken(name, margins) for name in ordered_sources(found)}
    return [
        f"{name} breaks the guardrail on {', '.join(names)}, against {guarded_against(run)}"
        for name, names in broken.items()
        if names
    ]


def _notes(run: Run, found: Anneals) -> list[str]:
    asked = run.config.design.anneals
    assert asked is not None
    seeds = "1 seed, so no interval" if asked.seeds == 1 else f"{asked.seeds} seeds, paired"
    length, spent = short_count(run.config.proxy.tokens), short_count(found.tokens)
    ran = f"{len(found.trials)} runs of {length} tokens ({seeds}): {spent} tokens spent"
    return [headline(found), ran, f"page: {run.path / PAGE}"]
