"""Sections of a report about what the proposal was made from: corpus, design and fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mixopt import plots
from mixopt.config import SourceConfig
from mixopt.corpus import Domain
from mixopt.fitting import CEILING, OBJECTIVE, Fit
from mixopt.objective import UNITS
from mixopt.plots import figure_svg
from mixopt.reporting.page import PageSection, figure, heading, paragraph, table
from mixopt.run_directory import Run
from mixopt.system import (
    bytes_text,
    count_text,
    loss_text,
    name_text,
    rank_text,
    share_text,
    short_count,
    without_folders,
    write_text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"regressor": 0, "member": 1, "control": 2, "ceiling": 3}  # the order of rows


class Pictures:
    """Keeps each figure of a report as a file, and gives it as an element of the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def show(self, name: str, drawn: Figure, description: str) -> str:
        """Write the figure to `<name>.svg` and return it with its description."""
        svg = figure_svg(drawn)
        write_text(self._folder / f"{name}.svg", svg)
        return figure(svg, name, description)


def corpus_section(run: Run) -> PageSection:
    """Show how much text each domain has, and where it is from."""
    corpus = run.corpus
    sources = {**run.config.corpus.domains, **run.config.evaluation}
    rows = [
        _corpus_row(domain, run.natural.get(domain.name), run.inventory, sources)
        for domain in corpus.evaluation
    ]
    body = paragraph(
        f"Tokenizer: {corpus.tokenizer}, {count_text(corpus.vocab_size)} entries. Held-out"
        " documents are never trained on; targets have no training text at all. Shares are of the"
        " whole domains; documents, tokens and text are what was prepared of them."
    )
    prepared = ("documents", "tokens", "text", "held-out tokens")
    columns = ("domain", "share", "whole domain", *prepared, "source")
    styles = ["" if domain.train is not None else "weak" for domain in corpus.evaluation]
    return PageSection("corpus", "Corpus", body + table(columns, rows, texts=[7], styles=styles))


def design_section(run: Run, pictures: Pictures) -> PageSection:
    """Show the mixtures that were tried, and what became of them."""
    trials = run.trials
    roles = Counter(trials.table["role"])
    kinds = ", ".join(f"{number} {role}" for role, number in roles.items())
    config, proxy = run.config.design, run.config.proxy
    body = paragraph(
        f"{len(trials)} trials ({kinds}), drawn by {config.method or 'dirichlet'}; each trains the"
        f" {proxy.name} proxy of {_parameters(trials.table)} parameters on"
        f" {short_count(proxy.tokens)} tokens of its mixture."
    )
    drawn = plots.plot_design(trials.weights(), trials.domains, run.natural)
    body += pictures.show("design", drawn, "The shares of each domain that the trials tried.")
    body += _unfinished(trials.table)
    return PageSection("design", "Design and trials", body)


def fit_section(run: Run, pictures: Pictures) -> PageSection:
    """Show how well each regressor predicts trials that it has not seen."""
    fit, unit = run.fit, UNITS[run.objective.value_unit]
    order = pl.col("kind").replace_strict(KINDS)
    rows = fit.report.filter(pl.col("target") == OBJECTIVE).sort(order, "rmse")
    body = paragraph(
        f"{name_text(fit.name)} was chosen by the {fit.criterion} ({fit.folds} folds; a mixture and"
        " its replicates are held out together). Controls rank or predict without a fitted law;"
        " a regressor that does not beat them has learned nothing."
    )
    body += "".join(paragraph(f"The fit {line}.") for line in fit.carried_by())
    body += _predictors(rows, fit.name, unit) + _noise(fit, unit)
    held_out = fit.held_out.filter(
        (pl.col("predictor") == fit.name) & (pl.col("target") == OBJECTIVE)
    )
    observed_N, predicted_N = (held_out[name].to_numpy() for name in ("observed", "predicted"))
    drawn = plots.plot_held_out(observed_N, predicted_N, unit, _spearman_note(rows, fit.name))
    body += pictures.show(
        "held_out",
        drawn,
        f"{name_text(fit.name)} on held-out folds: each trial was predicted unseen.",
    )
    weights_ND, objective_N = fit.trials.weights(), _objective(fit)
    drawn = plots.plot_responses(weights_ND, objective_N, fit.domains, run.proposal.mixture, unit)
    body += pictures.show(
        "responses", drawn, "The objective of each trial against the share of each domain."
    )
    return PageSection("fit", "Fit on held-out folds", body + _by_target(fit) + _reasons(fit))


def _corpus_row(
    domain: Domain,
    natural: float | None,
    inventory: dict[str, int],
    sources: dict[str, SourceConfig],
) -> tuple[str, ...]:
    source = _source(sources[domain.name])
    here = not domain.validation.is_elsewhere
    held_out = count_text(domain.validation.tokens) if here else ""
    train = domain.train
    if train is None:
        return (domain.name, "target", "", "", "", "", held_out, source)
    share, whole = share_text(natural or 0.0), short_count(inventory[domain.name])
    documents = count_text(train.documents) if train.documents else ""
    length = bytes_text(train.bytes) if train.bytes else ""
    text = (documents, count_text(train.tokens), length)
    text = text if here else ("", "", "")
    return (domain.name, share, whole, *text, held_out, source)


def _source(source: SourceConfig) -> str:
    if source.environment is not None:
        return f"installed packages: {source.environment}"
    if not source.has_text:
        return "the trainer's own"
    files = source.data_files or []
    names = [files] if isinstance(files, str) else files
    parts = [*source.paths, source.name or "", *names]
    return without_folders(", ".join(part for part in parts if part))


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


def _predictors(rows: pl.DataFrame, chosen: str, unit: str) -> str:
    cells, styles = [], []
    for row in rows.iter_rows(named=True):
        name = _heading(row["predictor"])
        kind = f"{row['kind']}, chosen" if row["predictor"] == chosen else row["kind"]
        cells.append((name, kind, rank_text(row["spearman"]), loss_text(row["rmse"])))
        styles.append("strong" if row["predictor"] == chosen else _style(row["kind"]))
    columns = ("predictor", "kind", "Spearman", f"error (RMSE), {unit}")
    caption = "The objective of held-out trials."
    return table(columns, cells, caption=caption, texts=[1], styles=styles)


def _heading(predictor: str) -> str:
    return "noise ceiling" if predictor == CEILING else name_text(predictor)


def _style(kind: str) -> str:
    return "" if kind in ("regressor", "member") else "weak"


def _noise(fit: Fit, unit: str) -> str:
    ceiling = fit.report.filter((pl.col("predictor") == CEILING) & (pl.col("target") == OBJECTIVE))
    if ceiling.is_empty():
        return paragraph(
            "No mixture was trained twice, so the noise of a trial is not known.", "soft"
        )
    return paragraph(
        f"The noise of a trial, from replicates of one mixture under other seeds, is"
        f" {loss_text(ceiling['rmse'][0])} {unit}. The ceiling is what a perfect predictor would"
        " reach under this noise.",
        "soft",
    )


def _spearman_note(rows: pl.DataFrame, chosen: str) -> str:
    found = {
        name: rank_text(value) for name, value in rows.select("predictor", "spearman").iter_rows()
    }
    note = f"Spearman {found[chosen]}"
    return f"{note}, ceiling {found[CEILING]}" if CEILING in found else note


def _reasons(fit: Fit) -> str:
    lines = [line.split(": ", 1) for line in fit.reasons()]
    if not lines:
        return ""
    caption = "What held-out trials chose for each loss, and how wrong each candidate was on them."
    return table(("evaluation domain", "chosen"), lines, caption=caption, texts=[1])


def _objective(fit: Fit) -> np.ndarray:
    return fit.objective.value(fit.trials.losses(fit.objective.unit))


def _by_target(fit: Fit) -> str:
    ranked = fit.report.filter(pl.col("spearman").is_not_null())
    names = list(dict.fromkeys(ranked["predictor"]))
    found = {
        (predictor, target): rank_text(value)
        for predictor, target, value in ranked.select("predictor", "target", "spearman").iter_rows()
    }
    rows = [
        (target, *(found.get((name, target), rank_text(None)) for name in names))
        for target in fit.targets
    ]
    styles = ["strong" if target in fit.objective.measured else "" for target in fit.targets]
    columns = ("evaluation domain", *(_heading(name) for name in names))
    return heading("By evaluation domain") + table(
        columns,
        rows,
        caption="Spearman on held-out folds; bold: part of the objective.",
        styles=styles,
    )
