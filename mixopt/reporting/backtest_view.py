"""A backtest in a terminal and as a page: predictors by number of trials, and losses.

The terminal has the least trials, those that are enough, and the most; the page has all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mixopt.reporting.page import Section, page_html, paragraph, table
from mixopt.reporting.tables import table_text
from mixopt.system import rank_text, share_text, write_text

if TYPE_CHECKING:
    from mixopt.fitting import Backtest

COLUMNS = (
    "predictor", "trials", "Spearman, losses", "Spearman, objective", "pick", "regret", "coverage",
    "width",
)  # fmt: skip
LOSS_COLUMNS = ("loss", "state", "Spearman", "lower bound", "own share")
MEANING = (
    "means over held-out runs; pick: true rank of the run that is predicted best, 1 being the best",
    "coverage: of 90% intervals of losses; width: half of theirs, in standard deviations of a loss",
    "lightgbm: RegMix's; olmix: the log-linear law; ridge: on square roots of the shares",
)
STATES = ("ready", "weak", "noise")


def backtest_text(found: Backtest) -> str:
    """Return the table of a backtest, what its columns mean, and what it says."""
    trials = list(dict.fromkeys(row["trials"] for row in found.rows))
    shown = {trials[0], found.enough or trials[0], trials[-1]}
    rows = [_cells(row) for row in found.rows if row["trials"] in shown]
    counts = Counter(one["state"] for one in found.losses[1:])
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    losses = f"losses at {trials[-1]} trials: {states}"
    return "\n".join(
        [table_text(_title(found), COLUMNS, rows), *_meaning(found), losses, *found.notes]
    )


def write_backtest(found: Backtest, path: Path) -> None:
    """Write the page of a backtest: one file."""
    title = _title(found)
    ours = [row for row in found.rows if row["predictor"] == found.rows[0]["predictor"]]
    first = Markup('<section id="answer"><h1>{}</h1>{}{}</section>').format(
        title, _paragraphs(found.notes), table(COLUMNS, map(_cells, ours))
    )
    every = table(COLUMNS, map(_cells, found.rows)) + _paragraphs(_meaning(found))
    sections = [
        Section("predictors", "Every predictor", every),
        Section("losses", "By loss", table(LOSS_COLUMNS, map(_loss_cells, found.losses))),
    ]
    write_text(path, page_html("backtest", title, first, sections))


def _paragraphs(lines: Iterable[str]) -> Markup:
    return Markup("").join(map(paragraph, lines))


def _title(found: Backtest) -> str:
    return (
        f"Backtest of {found.runs} runs: {found.splits} splits, {found.held_out:.0f} runs held out"
        " in each"
    )


def _meaning(found: Backtest) -> tuple[str, ...]:
    return (*MEANING, f"regret: how much worse that run is than the best, in {found.unit}")


def _cells(row: Mapping[str, Any]) -> list[str]:
    coverage, width = row["coverage"], row["width"]
    return [
        row["predictor"],
        str(row["trials"]),
        rank_text(row["loss_spearman"]),
        rank_text(row["objective_spearman"]),
        f"{row['pick_rank']:.1f}",
        f"{row['regret']:.4f}",
        "" if coverage is None else share_text(coverage),
        "" if width is None else f"{width:.2f}",
    ]


def _loss_cells(row: Mapping[str, Any]) -> list[str]:
    ranks = (rank_text(row[name]) for name in ("spearman", "low", "own_share"))
    return [row["loss"], row["state"], *ranks]
