"""The page of a run or a backtest: the answer first, its evidence folded below.

    report.html          the page; needs no network and no other file
    figures/<name>.svg   its figures

Every number is read from the run directory, so that the same run gives the same page. The page
names no host, no user and no absolute path.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from mixopt.baselines import is_built_in
from mixopt.config import DomainConfig, SourceConfig, task_metric
from mixopt.difference import Difference, size_text, unit_text
from mixopt.fitting import CEILING, OBJECTIVE, Backtest, Fit, readiness
from mixopt.mixture import branch_shares
from mixopt.proposals import is_proposal, named
from mixopt.reporting.answer import answer_of, capital, first_screen, proposal_of
from mixopt.reporting.figure_style import Figure, figure_svg
from mixopt.reporting.figures import plot_cells
from mixopt.reporting.page import Section, page_html, page_svg, part
from mixopt.reporting.run_experts import DESCRIPTIONS, SweepExperts
from mixopt.reporting.tables import loadings_text, table_text
from mixopt.reporting.terminal import (
    called_loss,
    forgetting_table,
    gain_table,
    in_order,
    sureness_lines,
)
from mixopt.reporting.what_if import what_if_section
from mixopt.run_directory import Run, commit_of
from mixopt.system import (
    duration,
    machine,
    name_text,
    package_versions,
    rank_text,
    share_text,
    short_count,
    without_folders,
    write_text,
)

KINDS = {"regressor": 0, "member": 1, "control": 2, "ceiling": 3}  # order of rows
MAX_LOADINGS = 2  # largest of a factor
MIN_COMPARED = 2  # baselines of each loss, natural and the user's own first
BACKTEST_COLUMNS = (
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


def write_report(run: Run) -> Path:
    """Write `report.html` and the figures of a run that has a proposal."""
    run.log.require("propose")
    answer = answer_of(run)
    sections = [what_if_section(run)]
    if branch_shares(answer.mixture):
        drawn = plot_cells({"mixture": answer.mixture, "natural": answer.natural})
        figure = _picture(run, "cells", f"Share of each cell, {answer.called}.", drawn)
        sections.append(Section("cells", "Cells", figure))
    if run.is_done("validate"):
        sections.append(_validation(run))
    sections += [_fit(run), _trials(run), _corpus(run), _provenance(run)]
    path = run.path / "report.html"
    name = run.config.name
    first = first_screen(run, answer)
    write_text(path, page_html(name, f"{name}: data mixture", first, sections))
    return path


def _picture(run: Run, name: str, description: str, drawn: Figure | None = None) -> Markup:
    """Write a figure, one of `run.plot` unless it is given; return it with its description."""
    svg = figure_svg(drawn or getattr(run.plot, name)())
    write_text(run.path / "figures" / f"{name}.svg", svg)
    element = Markup(page_svg(svg, name, description))
    return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(element, description)


def _validation(run: Run) -> Section:
    """Return all validated mixtures, their predictions, and every loss."""
    validation = run.validation
    recommendation = run.recommendation
    objective = capital(run.objective.describe())
    unit = unit_text(recommendation.unit)
    tokens = short_count(recommendation.tokens)
    about = f"{objective}, {unit}; {tokens} tokens a run, paired by seed."
    if validation.means_note:
        about += f" {validation.means_note}"
    _, columns, rows = gain_table(recommendation, validation)
    body = part("table", columns, rows, caption=about, texts=[5]) + _by_loss(run)
    if forgetting := forgetting_table(run):
        title, columns, rows = forgetting
        body += part("table", columns, rows, caption=f"{title}.")
    return Section("validation", "Validation", body)


def _by_loss(run: Run) -> Markup:
    """Return the gain over natural and the user's own mixtures for each loss."""
    validation = run.validation
    chosen = run.recommendation.chosen
    gains = in_order(run.recommendation.gains)
    always_shown = [name for name in gains if name == "natural" or _is_own(name)]
    baselines = list(gains)[: max(len(always_shown), MIN_COMPARED)]
    rows = []
    styles = []
    for target in validation.trials.targets:
        called, unit = called_loss(target, run.objective.items)
        cells = [called, size_text(validation.mean(chosen, target), unit)]
        for baseline in baselines:
            gain = validation.compare(baseline, target, of=chosen)
            cells.append("" if gain is None else _gain_text(gain))
        rows.append(cells)
        styles.append("strong" if target in run.objective.measured else "")
    name = named(chosen, gains)
    over = [f"over {named(baseline, [chosen, *gains])}" for baseline in baselines]
    columns = ["loss", name, *over]
    caption = f"Gains of {name}, 95%; above 0 is better; bold: the objective's."
    metrics = [task_metric(name) for name in validation.trials.targets]
    if any(metric is not None and metric[1] != "bits_per_byte" for metric in metrics):
        caption += " A task's metric is in its own unit."
    return part("table", columns, rows, caption=caption, styles=styles)


def _is_own(baseline: str) -> bool:
    return not (is_built_in(baseline) or is_proposal(baseline))


def _gain_text(gain: Difference) -> str:
    return f"{gain.mean_text} \N{PLUS-MINUS SIGN} {gain.half_text}"


def _fit(run: Run) -> Section:
    """Return the accuracy of each regressor, and the uncertainty of the proposal."""
    fit = run.fit
    unit = run.objective.value_unit
    why = run.recommendation.why if run.is_done("validate") else ""
    sure = sureness_lines(proposal_of(run) or run.proposal)
    body = part("paragraph", " ".join(line for line in sure if line not in why))
    rows = fit.report.filter(pl.col("target") == OBJECTIVE)
    rows = rows.sort(pl.col("kind").replace_strict(KINDS), "rmse")
    body += _predictors(rows, fit, unit) + _signal(fit)
    about = f"{name_text(fit.name)} on {fit.data.folds} held-out folds."
    body += _picture(run, "held_out", about)
    body += _picture(run, "responses", "The objective predicted along each domain's share.")
    return Section("fit", "What the fit knows", body)


def _predictors(rows: pl.DataFrame, fit: Fit, unit: str) -> Markup:
    cells = []
    styles = []
    for row in rows.iter_rows(named=True):
        predictor = row["predictor"]
        kind = row["kind"]
        name = "noise ceiling" if predictor == CEILING else name_text(predictor)
        style = "" if kind in ("regressor", "member") else "weak"
        if predictor == fit.name:
            kind = f"{kind}, chosen"
            style = "strong"
        cells.append((name, kind, rank_text(row["spearman"]), size_text(row["rmse"], unit)))
        styles.append(style)
    columns = ("predictor", "kind", "Spearman", f"error (RMSE), {unit_text(unit)}")
    caption = "The objective of held-out trials; controls have no fitted law."
    return part("table", columns, cells, caption=caption, texts=[1], styles=styles)


def _signal(fit: Fit) -> Markup:
    """Return noise and signal of each loss, and the factors of the losses."""
    result = readiness(fit)
    columns = ("loss", "noise", "follows the mixture", "arms")
    rows = []
    for loss in (result.objective, *result.losses):
        noise = "" if loss.noise_share is None else share_text(loss.noise_share)
        rows.append((loss.name, noise, share_text(loss.followed), loss.verdict))
    body = part("table", columns, rows, caption="Of the variance, held out.", texts=[3])
    texts = [
        f"{loadings_text(factor, MAX_LOADINGS)} ({share_text(factor.share)}, Spearman"
        f" {rank_text(factor.spearman)})"
        for factor in result.factors
    ]
    factors = ""
    if texts:
        factors = f"Factors: {'; '.join(texts)}. ".replace(" -", " \N{MINUS SIGN}")
    return body + part("paragraph", f"{factors}More: mixopt status --readiness.")


def _trials(run: Run) -> Section:
    """Return the shares tried, the trials that failed, and experts."""
    trials = run.trials
    rows = trials.table
    proxy = run.config.proxy
    roles = ", ".join(f"{number} {role}" for role, number in Counter(rows["role"]).items())
    early = ""
    stopped = (rows["status"] == "stopped").sum()
    if stopped:
        early = f"; {stopped} were stopped early, and their losses are estimates"
    parameters = rows.filter(pl.col("status") == "finished")["parameters"].to_numpy()
    body = part(
        "paragraph",
        f"{len(trials)} trials ({roles}) of {short_count(proxy.tokens)} tokens, by the"
        f" {proxy.name} proxy of {short_count(float(np.median(parameters)))} parameters{early}.",
    )
    body += _picture(run, "design", "What the trials tried.")
    body += _unfinished(rows) + _experts(run)
    return Section("trials", "Trials", body)


def _unfinished(rows: pl.DataFrame) -> Markup:
    failed = rows.filter(pl.col("status").is_in(["failed", "diverged"]))
    lines = []
    for trial, status, reason in failed.select("trial", "status", "reason").iter_rows():
        lines.append((trial, status, without_folders(reason or "")))
    if not lines:
        return Markup()
    caption = f"{len(lines)} of {len(rows)} trials did not finish; they are left out of the fit."
    return part("table", ("trial", "status", "reason"), lines, caption=caption, texts=[1, 2])


def _experts(run: Run) -> Markup:
    """Return the experts of one trial, and the number of trials in which experts collapsed."""
    experts = SweepExperts.read(run.path, run=run)
    if experts is None:
        return Markup()
    summary = str(experts)
    body = part("heading", "Experts")
    body += part("folded", summary.splitlines()[0].capitalize(), summary)
    for name, drawn in experts.figures().items():
        body += _picture(run, name, DESCRIPTIONS[name], drawn)
    return body


def _corpus(run: Run) -> Section:
    """Return sizes and sources of the domains."""
    corpus = run.corpus
    config = run.config.corpus
    sources = {**config.domains, **config.parts, **run.config.evaluation}
    order = sorted(corpus.evaluation, key=lambda domain: -run.inventory.get(domain.name, 0))
    rows = []
    for domain in order:
        size = "target"
        documents = ""
        tokens = ""
        held_out = ""
        if domain.train is not None:
            size = short_count(run.inventory[domain.name])
        if not domain.validation.is_elsewhere:
            held_out = f"{domain.validation.tokens:,}"
            if domain.train is not None:
                documents = f"{domain.train.documents:,}" if domain.train.documents else ""
                tokens = f"{domain.train.tokens:,}"
        source = _source(sources[domain.name])
        rows.append((domain.name, size, documents, tokens, held_out, source))
    columns = ("domain", "whole domain", "documents", "tokens", "held-out tokens", "source")
    styles = ["" if domain.train is not None else "weak" for domain in order]
    caption = f"Tokenizer: {corpus.tokenizer}, {corpus.vocab_size:,} entries."
    body = part("table", columns, rows, caption=caption, texts=[5], styles=styles)
    return Section("corpus", "Corpus", body)


def _source(source: SourceConfig) -> str:
    if source.environment is not None:
        return f"installed packages: {source.environment}"
    if isinstance(source, DomainConfig) and source.mixed is not None:
        return "made of " + ", ".join(source.mixed.domains)
    if not source.has_text:
        return "the trainer's own"
    files = source.data_files or []
    names = [files] if isinstance(files, str) else files
    parts = [*source.paths, source.name, *names]
    return without_folders(", ".join(filter(None, parts)))


def _provenance(run: Run) -> Section:
    """Return the provenance of the answer: steps, seeds and versions."""
    entries: dict[str, Any] = {}
    for step, seconds in run.log.seconds.items():
        if step != "report":
            entries[f"{step}, {duration(seconds)}"] = run.log.fingerprint(step)
    entries["corpus"] = run.corpus.fingerprint
    entries["seed"] = run.config.seed
    if run.is_done("validate"):
        seeds = sorted(set(run.validation.trials.table["seed"]))
        entries["seeds of the validation"] = ", ".join(map(str, seeds))
    entries["machine"] = machine()
    unknown = "not asked for without --trust" if run.is_foreign else "not a repository"
    entries["commit"] = commit_of(run) or unknown
    entries |= package_versions()
    table = part("table", ("what", "value"), list(entries.items()), texts=[1])
    return Section("provenance", "Provenance", table)


def backtest_text(backtest: Backtest) -> str:
    """Return the table of a backtest, the meaning of its columns, and its conclusions."""
    trials = [row["trials"] for row in backtest.rows]
    shown = {trials[0], backtest.enough, trials[-1]}
    rows = [_backtest_cells(row, backtest.unit) for row in backtest.rows if row["trials"] in shown]
    counts = Counter(loss["state"] for loss in backtest.losses[1:])
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    table = table_text(_backtest_title(backtest), BACKTEST_COLUMNS, rows)
    losses = f"losses at {trials[-1]} trials: {states}"
    return "\n".join([table, *_meaning(backtest), losses, *backtest.notes])


def write_backtest(backtest: Backtest, path: Path) -> None:
    """Write the page of a backtest as one file."""
    title = _backtest_title(backtest)
    cells = [_backtest_cells(row, backtest.unit) for row in backtest.rows]
    ours = [row for row in cells if row[0] == cells[0][0]]
    first = Markup('<section id="answer"><h1>{}</h1>{}{}</section>').format(
        title, _paragraphs(backtest.notes), part("table", BACKTEST_COLUMNS, ours)
    )
    predictors = part("table", BACKTEST_COLUMNS, cells) + _paragraphs(_meaning(backtest))
    losses = [_loss_cells(row) for row in backtest.losses]
    sections = [
        Section("predictors", "Every predictor", predictors),
        Section("losses", "By loss", part("table", LOSS_COLUMNS, losses)),
    ]
    write_text(path, page_html("backtest", title, first, sections))


def _paragraphs(lines: Iterable[str]) -> Markup:
    return Markup().join(part("paragraph", line) for line in lines)


def _loss_cells(row: Mapping[str, Any]) -> list[str]:
    ranks = [rank_text(row[name]) for name in ("spearman", "low", "own_share")]
    return [row["loss"], row["state"], *ranks]


def _backtest_title(backtest: Backtest) -> str:
    return (
        f"Backtest of {backtest.runs} runs: {backtest.splits} splits,"
        f" {backtest.held_out:.0f} runs held out in each"
    )


def _meaning(backtest: Backtest) -> tuple[str, ...]:
    unit = unit_text(backtest.unit)
    return (*MEANING, f"regret: how much worse that run is than the best, in {unit}")


def _backtest_cells(row: Mapping[str, Any], unit: str) -> list[str]:
    coverage = row["coverage"]
    width = row["width"]
    return [
        row["predictor"],
        str(row["trials"]),
        rank_text(row["loss_spearman"]),
        rank_text(row["objective_spearman"]),
        f"{row['pick_rank']:.1f}",
        size_text(row["regret"], unit),
        "" if coverage is None else share_text(coverage),
        "" if width is None else f"{width:.2f}",
    ]
