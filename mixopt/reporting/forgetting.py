"""What trials from a checkpoint forget: its losses before any step, beside those of mixtures."""

from __future__ import annotations

from mixopt.objective import UNITS
from mixopt.proposals import named
from mixopt.reporting.page import heading, paragraph, table
from mixopt.reporting.text_table import table_text
from mixopt.run_directory import Run
from mixopt.system import difference_text, interval_text, loss_text

BEFORE = "before: the checkpoint"
_REFERENCE = "natural"


def forgetting_part(run: Run) -> str:
    """Return the part of the page; nothing where trials begin with random weights."""
    rows = forgetting_rows(run)
    if not rows:
        return ""
    unit = UNITS[run.objective.unit]
    chosen = run.recommendation.chosen
    body = heading("What the checkpoint knew") + paragraph(
        f"Held-out losses of the checkpoint that all trials begin with ({BEFORE}), measured before"
        " any step on the same text, and of runs from it. A change above 0 is what is forgotten:"
        " its interval is over seeds, which differ in the order of the data alone."
    )
    columns = ("evaluation domain", BEFORE, *_columns(run), "change", "95% interval")
    caption = f"{unit}; the change is {named(chosen)} - the checkpoint"
    return body + table(columns, rows, caption=caption)


def forgetting_text(run: Run) -> str:
    """Return the same for a terminal; empty where trials begin with random weights."""
    rows = forgetting_rows(run)
    if not rows:
        return ""
    columns = ("loss", "before", *_columns(run), "change", "95% interval")
    unit = UNITS[run.objective.unit]
    return table_text(f"{BEFORE.capitalize()}, {unit}", columns, rows)


def forgetting_rows(run: Run) -> list[tuple[str, ...]]:
    """Return a row for each loss: before, each mixture's mean, and the change of the chosen one."""
    base = run.base_losses
    if base is None or not run.is_done("validate"):
        return []
    validation, chosen = run.validation, run.recommendation.chosen
    rows = []
    for name in validation.trials.targets:
        if name not in base:
            continue
        means = [loss_text(validation.mean(mixture, name)) for mixture in _mixtures(run)]
        found = validation.compare_with("base", base[name], name, of=chosen)
        change = ("", "")
        if found is not None:
            change = (difference_text(found.mean), interval_text(found.low, found.high))
        rows.append((name, loss_text(base[name]), *means, *change))
    return rows


def _mixtures(run: Run) -> list[str]:
    """Return natural, where it was validated, and what is recommended."""
    chosen = run.recommendation.chosen
    natural = [_REFERENCE] if _REFERENCE in run.validation.mixtures else []
    return list(dict.fromkeys([*natural, chosen]))


def _columns(run: Run) -> list[str]:
    return [named(mixture) for mixture in _mixtures(run)]
