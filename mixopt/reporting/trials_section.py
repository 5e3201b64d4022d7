"""The section of the page about the trials: which mixtures were tried, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from mixopt import plots
from mixopt.objective import UNITS
from mixopt.reporting.experts_section import experts_part
from mixopt.reporting.page import PageSection, heading, paragraph, table
from mixopt.reporting.pictures import Pictures
from mixopt.run_directory import Run
from mixopt.system import Array, loss_text, share_text, short_count, without_folders

LARGEST = 4  # domains of a trial that its row names


def trials_section(run: Run, pictures: Pictures) -> PageSection:
    """Show the mixtures that were tried, the best first, and what became of them."""
    trials = run.trials
    roles = Counter(trials.table["role"])
    kinds = ", ".join(f"{number} {role}" for role, number in roles.items())
    config, proxy = run.config.design, run.config.proxy
    body = paragraph(
        f"{len(trials)} trials ({kinds}), drawn by {config.method or 'dirichlet'}. Each trains the"
        f" {proxy.name} proxy of {_parameters(trials.table)} parameters on"
        f" {short_count(proxy.tokens)} tokens of its mixture."
    )
    drawn = plots.plot_design(trials, run.natural)
    body += pictures.show("design", drawn, "The shares of each domain that the trials tried.")
    body += heading("Finished trials") + _finished(run) + _unfinished(trials.table)
    return PageSection("trials", "Trials", body + experts_part(run, pictures))


def _finished(run: Run) -> str:
    """Return a row for each finished trial: its objective, and the most of its mixture."""
    done = run.trials.finished
    values_N = run.objective.value(done.losses(run.objective.unit))
    weights_ND = done.weights()
    rows = [
        (name, role, loss_text(float(values_N[at])), _largest(done.domains, weights_ND[at]))
        for at, (name, role) in enumerate(done.table.select("trial", "role").iter_rows())
    ]
    ordered = [rows[at] for at in np.argsort(values_N, kind="stable")]
    caption = f"Observed objective, {UNITS[run.objective.value_unit]}; lower is better."
    columns = ("trial", "role", "objective", "largest shares")
    return table(columns, ordered, caption=caption, texts=[1, 3])


def _largest(domains: Sequence[str], weights_D: Array) -> str:
    order = np.argsort(-weights_D, kind="stable")[:LARGEST]
    shares = [(domains[at], float(weights_D[at])) for at in order]
    return ", ".join(f"{name} {share_text(weight)}" for name, weight in shares if weight > 0)


def _parameters(rows: pl.DataFrame) -> str:
    counts = rows.filter(pl.col("status") == "finished")["parameters"]
    return short_count(float(np.median(counts.to_numpy())))


def _unfinished(rows: pl.DataFrame) -> str:
    failed = rows.filter(pl.col("status") != "finished")
    if failed.is_empty():
        return paragraph("All trials finished.", "soft")
    lines = [
        (trial, status, without_folders(reason or ""))
        for trial, status, reason in failed.select("trial", "status", "reason").iter_rows()
    ]
    caption = f"{len(lines)} of {len(rows)} trials did not finish; they are left out of the fit."
    return table(("trial", "status", "reason"), lines, caption=caption, texts=[1, 2])
