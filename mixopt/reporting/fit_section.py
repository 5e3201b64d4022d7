"""The section of the page about the fit: how well it predicts trials that it has not seen."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
from markupsafe import Markup

from mixopt.fitting import CEILING, OBJECTIVE, Fit, readiness
from mixopt.objective import UNITS
from mixopt.proposals import Proposal
from mixopt.reporting.evidence_figures import plot_held_out, plot_responses
from mixopt.reporting.page import Section, bullets, folded_list, heading, paragraph, table
from mixopt.reporting.page_figures import Pictures
from mixopt.reporting.tables import (
    READINESS_TITLE,
    readiness_meaning,
    readiness_order,
    readiness_rows,
)
from mixopt.run_directory import Run
from mixopt.system import difference_text, loss_text, name_text, rank_text, share_text

KINDS = {"regressor": 0, "member": 1, "control": 2, "ceiling": 3}  # the order of rows


def fit_section(run: Run, pictures: Pictures) -> Section:
    """Show how well each regressor predicts, and how sure that makes the proposal."""
    fit, unit = run.fit, UNITS[run.objective.value_unit]
    order = pl.col("kind").replace_strict(KINDS)
    rows = fit.report.filter(pl.col("target") == OBJECTIVE).sort(order, "rmse")
    body = paragraph(
        f"{_chosen(fit)} ({fit.folds} folds; a mixture and its replicates are held out together)."
        " Controls rank or predict without a fitted law; a regressor that does not beat them has"
        " learned nothing."
    )
    for line in fit.carried_by():
        body += paragraph(f"The fit {line}.")
    body += bullets(_sureness(run.proposal))
    body += heading("Held-out trials") + _predictors(rows, fit.name, unit) + _noise(fit, unit)
    about = f"{name_text(fit.name)} on held-out folds: each trial was predicted unseen."
    body += pictures.show("held_out", plot_held_out(fit), about)
    about = "The objective that is predicted along each domain's share, with the trials."
    body += pictures.show("responses", plot_responses(fit, run.proposal), about)
    body += _readiness(run) + _reasons(fit)
    return Section("fit", "What the fit knows", body)


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


def _predictors(rows: pl.DataFrame, chosen: str, unit: str) -> Markup:
    cells, styles = [], []
    for row in rows.iter_rows(named=True):
        predictor, kind = row["predictor"], row["kind"]
        name = "noise ceiling" if predictor == CEILING else name_text(predictor)
        is_chosen = predictor == chosen
        role = f"{kind}, chosen" if is_chosen else kind
        cells.append((name, role, rank_text(row["spearman"]), loss_text(row["rmse"])))
        is_fitted = kind in ("regressor", "member")
        styles.append("strong" if is_chosen else "" if is_fitted else "weak")
    columns = ("predictor", "kind", "Spearman", f"error (RMSE), {unit}")
    caption = "The objective of held-out trials."
    return table(columns, cells, caption=caption, texts=[1], styles=styles)


def _noise(fit: Fit, unit: str) -> Markup:
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


def _readiness(run: Run) -> Markup:
    """Show how ready each loss of a run is; bold ones are part of the objective."""
    found = readiness(run.fit)
    about = found.replicates.describe()
    body = heading(READINESS_TITLE) + paragraph(f"{about[0].upper()}{about[1:]}.")
    if found.left_out:
        body += paragraph(f"Left out of the objective as noise: {', '.join(found.left_out)}.")
    columns, rows = readiness_rows(found)
    weak = {"noise": "weak"}
    styles = [weak.get(one.state, "strong" if one.weight else "") for one in readiness_order(found)]
    texts = [
        place for place, name in enumerate(columns) if name in ("most correlated with", "state")
    ]
    body += table(columns, rows, caption="Bold: part of the objective.", styles=styles, texts=texts)
    return body + folded_list("What the columns mean", readiness_meaning(found))


def _reasons(fit: Fit) -> Markup:
    lines = [line.split(": ", 1) for line in fit.reasons()]
    if not lines:
        return Markup()
    caption = "What held-out trials chose for each loss, and how wrong each candidate was on them."
    return table(("evaluation domain", "chosen"), lines, caption=caption, texts=[1])
