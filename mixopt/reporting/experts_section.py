"""The part of the page about the experts of the proxies, where they have some."""

from __future__ import annotations

import polars as pl

from mixopt.reporting.page import bullets, heading, paragraph, table
from mixopt.reporting.page_figures import Pictures
from mixopt.reporting.run_experts import DESCRIPTIONS, SweepExperts
from mixopt.routing import Summary, key_column
from mixopt.run_directory import Run
from mixopt.system import share_text

SHOWN = 6  # trials whose experts collapsed, in words
_COLUMNS = (
    ("layer", "key"),
    ("experts", "experts"),
    ("load entropy; 1 is even", "load_entropy"),
    ("busiest over even", "busiest"),
    ("beyond capacity", "overflow"),
    ("dead experts", "dead"),
)


def experts_part(run: Run, pictures: Pictures) -> str:
    """Show what the experts of one trial do, and in how many trials they collapsed."""
    found = SweepExperts.read(run.path)
    if found is None:
        return ""
    trials, marked = len(found.trials.by_trial()), len(found.trials.collapsed)
    body = heading("Experts") + paragraph(f"Experts collapsed in {marked} of {trials} trials.")
    body += bullets(_collapses(found))
    body += paragraph(
        f"Below is trial {found.shown}: load as in the second half of its training, domains"
        " compared on held-out text, as much of each."
    )
    body += _by_layer(found) + _by_domain(found)
    lines = [str(one) for one in found.summary.diagnoses]
    body += bullets(lines) if lines else paragraph("No collapse, degradation or underfitting.")
    for name, drawn in found.figures().items():
        body += pictures.show(name, drawn, DESCRIPTIONS[name])
    return body


def _collapses(found: SweepExperts) -> list[str]:
    """Say of some trials whose experts collapsed how they did, a line each."""
    rows = found.trials.table.filter(pl.col("has_collapsed")).group_by("trial", maintain_order=True)
    first = rows.agg(pl.col("diagnoses").explode().first()).iter_rows()
    lines = [f"{trial}: {what}" for trial, what in first]
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"and {more} more, in experts.parquet"] if more > 0 else [])


def _by_layer(found: SweepExperts) -> str:
    rows = [
        (*(_cell(row[name]) for _, name in _COLUMNS), _cell(found.specialisation[row["key"]]))
        for row in found.summary.layers.with_columns(key_column()).iter_rows(named=True)
    ]
    caption = "Specialisation: what the expert says about the domain, less chance; 1 is all."
    return table([*(title for title, _ in _COLUMNS), "specialisation"], rows, caption=caption)


def _by_domain(found: SweepExperts) -> str:
    held_out = Summary.of(found.counts.held_out).by_domain()
    text = {row["domain"]: row for row in held_out.iter_rows(named=True)}
    rows = []
    for row in found.summary.by_domain().iter_rows(named=True):
        other = text.get(row["domain"], {})
        cells = (row["max_violation"], row["starved"], other.get("own"), other.get("distance"))
        rows.append((row["domain"], share_text(row["share"] or 0.0), *map(_cell, cells)))
    columns = ("domain", "share", "busiest above even", "starved experts", "own experts")
    caption = "Own experts: share of its tokens that go to experts which get 1.5 times more of it."
    return table((*columns, "distance to others"), rows, caption=caption)


def _cell(value: str | float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, (int, str)) else f"{value:.3f}"
