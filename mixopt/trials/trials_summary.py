"""A table of trials in a few words, and as a small table in a notebook.

Shapes: N trials, M losses.
"""

from __future__ import annotations

from collections import Counter

from mixopt.mixture import largest_shares
from mixopt.system import html_table, loss_text
from mixopt.trials.columns import WEIGHT, TrialRows, Unit, loss_column

LOSSES = 5  # that have a column each


def counts_text(trials: TrialRows) -> str:
    """Count trials by what became of them: `28 finished, 2 failed`."""
    found = Counter(trials.table["status"])
    order = sorted(found, key=lambda status: (status != "finished", status))
    return ", ".join(f"{found[status]} {status}" for status in order) or "no trials"


def trials_html(trials: TrialRows, unit: Unit) -> str:
    """Return the trials as an HTML table: what became of each, its largest shares, its losses."""
    shown = trials.targets[:LOSSES]
    rows = []
    for row in trials.table.iter_rows(named=True):
        shares = {name: row[WEIGHT + name] for name in trials.domains}
        losses = [loss_text(row[loss_column(name, unit)]) for name in shown]
        rows.append((row["trial"], row["status"], largest_shares(shares), *losses))
    notes = list(trials.notes)
    if len(shown) < len(trials.targets):
        notes.insert(0, f"and {len(trials.targets) - len(shown)} more losses")
    caption = f"{counts_text(trials)}; losses in {unit.replace('_', ' ')}"
    columns = ("trial", "status", "largest shares", *shown)
    return html_table(caption, columns, rows, notes=notes, texts=[1, 2], what="trials")
