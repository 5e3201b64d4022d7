"""A fit in a line, and its regressors on held-out folds as a table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from mixopt.fitting.held_out_predictions import OBJECTIVE
from mixopt.objective import UNITS, Objective
from mixopt.system import html_table, loss_text, rank_text

KINDS = {"regressor": 0, "member": 1, "control": 2, "ceiling": 3}  # the order of rows


def fit_line(name: str, report: pl.DataFrame, objective: Objective, size: str) -> str:
    """Say what was chosen, and how good it is on held-out folds.

    Args:
        name: The chosen regressor.
        report: Each regressor on held-out folds.
        objective: What is minimised.
        size: How many trials, domains and losses, in words.
    """
    own = (pl.col("predictor") == name) & (pl.col("target") == OBJECTIVE)
    found = report.filter(own)
    said = ""
    if len(found):
        rank, error = rank_text(found["spearman"][0]), loss_text(found["rmse"][0])
        said = f"; held out: Spearman {rank}, RMSE {error} {UNITS[objective.value_unit]}"
    return f"Fit({name!r}: {size}{said})"


def fit_html(
    chosen: str, report: pl.DataFrame, objective: Objective, size: str, notes: Iterable[str]
) -> str:
    """Return the regressors, controls and the noise ceiling as an HTML table.

    Args:
        chosen: The chosen regressor.
        report: Each regressor on held-out folds.
        objective: What is minimised.
        size: How many trials, domains and losses, in words.
        notes: Lines below it.
    """
    order = pl.col("kind").replace_strict(KINDS, default=len(KINDS))
    rows = report.filter(pl.col("target") == OBJECTIVE).sort(order, "rmse")
    cells = []
    for row in rows.iter_rows(named=True):
        name, kind = row["predictor"], row["kind"]
        said = f"{kind}, chosen" if name == chosen else kind
        cells.append((name, said, rank_text(row["spearman"]), loss_text(row["rmse"])))
    columns = ("predictor", "kind", "Spearman", f"RMSE, {UNITS[objective.value_unit]}")
    caption = f"{chosen}, fitted to {size}: {objective.describe()} of held-out trials"
    return html_table(caption, columns, cells, notes=notes, texts=[1], what="predictors")
