"""The section of the page about the fit: how well it predicts trials that it has not seen."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from mixopt import plots
from mixopt.fitting import CEILING, OBJECTIVE, Fit
from mixopt.objective import UNITS
from mixopt.proposals import Proposal
from mixopt.reporting.page import PageSection, bullets, heading, paragraph, table
from mixopt.reporting.pictures import Pictures
from mixopt.reporting.readiness_table import readiness_part
from mixopt.run_directory import Run
from mixopt.system import difference_text, loss_text, name_text, rank_text, share_text

KINDS = {"regressor": 0, "member": 1, "control": 2, "ceiling": 3}  # the order of rows


def fit_section(run: Run, pictures: Pictures) -> PageSection:
    """Show how well each regressor predicts, and how sure that makes the proposal."""
    fit, unit = run.fit, UNITS[run.objective.value_unit]
    order = pl.col("kind").replace_strict(KINDS)
    rows = fit.report.filter(pl.col("target") == OBJECTIVE).sort(order, "rmse")
    body = paragraph(
        f"{_chosen(fit)} ({fit.folds} folds; a mixture and its replicates are held out together)."
        " Controls rank or predict without a fitted law; a regressor that does not beat them has"
        " learned nothing."
    )
    body += "".join(paragraph(f"The fit {line}.") for line in fit.carried_by())
    body += bullets(_sureness(run.proposal))
    body += heading("Held-out trials") + _predictors(rows, fit.name, unit) + _noise(fit, unit)
    body += _figures(run, pictures)
    body += _by_target(fit) + readiness_part(run) + _reasons(fit)
    return PageSection("fit", "What the fit knows", body)


def _chosen(fit: Fit) -> str:
    """Say why this regressor was chosen."""
    name, kinds = name_text(fit.name), pl.col("kind") == "regressor"
    if fit.report.filter(kinds)["predictor"].n_unique() == 1:
        return f"{name} is the only regressor that was fitted"
    return f"{name} was chosen because it has the {fit.criterion} of the candidates"


def _sureness(proposal: Proposal) -> Iterable[str]:
    """Say how far the proposal moves, and by how much its prediction is optimistic."""
    moved, optimism = proposal.stability, proposal.optimism.estimate
    yield f"Effective domains: {proposal.effective_domains:.1f}."
    if moved is not None:
        yield (
            f"Stability: {share_text(moved.mean)} of the mixture moves when trials are resampled"
            f" ({moved.refits} refits)."
        )
    if optimism is not None:
        yield (
            f"Optimism: {difference_text(optimism)}, the observed - predicted objective of trials"
            " that were predicted best while held out."
        )


def _figures(run: Run, pictures: Pictures) -> str:
    fit = run.fit
    drawn = plots.plot_held_out(fit)
    about = f"{name_text(fit.name)} on held-out folds: each trial was predicted unseen."
    body = pictures.show("held_out", drawn, about)
    drawn = plots.plot_responses(fit, run.proposal)
    about = "The objective that is predicted along each domain's share, with the trials."
    return body + pictures.show("responses", drawn, about)


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


def _reasons(fit: Fit) -> str:
    lines = [line.split(": ", 1) for line in fit.reasons()]
    if not lines:
        return ""
    caption = "What held-out trials chose for each loss, and how wrong each candidate was on them."
    return table(("evaluation domain", "chosen"), lines, caption=caption, texts=[1])


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
