"""The decision page of a run: the answer on its first screen, and below where it comes from.

    report.html          the page; needs no network and no other file
    figures/<name>.svg   its figures

Every number is read from the run directory, so that writing the page again gives the same page.
It names no host, no user and no absolute path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from markupsafe import Markup

from mixopt.config import DomainConfig, SourceConfig, dump_config
from mixopt.corpus import Domain
from mixopt.fitting import CEILING, OBJECTIVE, Fit, readiness
from mixopt.objective import UNITS
from mixopt.proposals import Proposal
from mixopt.reporting.answer import answer_of, first_screen
from mixopt.reporting.evidence_figures import plot_held_out, plot_responses
from mixopt.reporting.mixture_figures import plot_design
from mixopt.reporting.page import (
    Section,
    bullets,
    folded,
    folded_list,
    heading,
    page_html,
    paragraph,
    table,
)
from mixopt.reporting.page_figures import Pictures
from mixopt.reporting.run_experts import DESCRIPTIONS, SweepExperts
from mixopt.reporting.tables import (
    READINESS_TITLE,
    readiness_meaning,
    readiness_order,
    readiness_rows,
)
from mixopt.reporting.validation_section import validation_section
from mixopt.reporting.what_if import what_if_section
from mixopt.routing import Summary, key_column
from mixopt.run_directory import Run, commit_of
from mixopt.system import (
    bytes_text,
    count_text,
    difference_text,
    duration,
    loss_text,
    machine,
    name_text,
    package_versions,
    rank_text,
    share_text,
    short_count,
    without_folders,
    write_text,
)

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


MAX_SHARES = 4  # domains of a trial that its row names


def write_report(run: Run) -> Path:
    """Write `report.html` and the figures of a run whose proposal is made."""
    run.log.require("propose")
    first = first_screen(run, answer_of(run))
    sections = list(_sections(run, Pictures(run.path / "figures")))
    path, name = run.path / "report.html", run.config.name
    write_text(path, page_html(name, f"{name}: data mixture", first, sections))
    return path


def _sections(run: Run, pictures: Pictures) -> Iterable[Section]:
    yield what_if_section(run)
    if run.is_done("validate"):
        yield validation_section(run, pictures)
    yield fit_section(run, pictures)
    yield trials_section(run, pictures)
    yield corpus_section(run)
    yield provenance_section(run)


def trials_section(run: Run, pictures: Pictures) -> Section:
    """Show the mixtures that were tried, the best first, and what became of them."""
    trials, rows = run.trials, run.trials.table
    kinds = ", ".join(f"{number} {role}" for role, number in Counter(rows["role"]).items())
    config, proxy = run.config.design, run.config.proxy
    parameters = rows.filter(pl.col("status") == "finished")["parameters"].to_numpy()
    body = paragraph(
        f"{len(trials)} trials ({kinds}), drawn by {config.method or 'dirichlet'}. Each trains the"
        f" {proxy.name} proxy of {short_count(float(np.median(parameters)))} parameters on"
        f" {short_count(proxy.tokens)} tokens of its mixture."
    )
    drawn = plot_design(trials, run.natural)
    body += pictures.show("design", drawn, "The shares of each domain that the trials tried.")
    body += heading("Finished trials") + _finished(run) + _unfinished(rows)
    return Section("trials", "Trials", body + experts_part(run, pictures))


def _finished(run: Run) -> Markup:
    """Return a row for each finished trial: its objective, and the most of its mixture."""
    done = run.trials.finished
    values_N = run.objective.value(done.losses(run.objective.unit))
    weights_ND = done.weights()
    labels = list(done.table.select("trial", "role").iter_rows())
    rows = []
    for at in np.argsort(values_N, kind="stable"):
        largest = np.argsort(-weights_ND[at], kind="stable")[:MAX_SHARES]
        shares = [(done.domains[d], float(weights_ND[at, d])) for d in largest]
        named = ", ".join(f"{name} {share_text(weight)}" for name, weight in shares if weight > 0)
        rows.append((*labels[at], loss_text(float(values_N[at])), named))
    caption = f"Observed objective, {UNITS[run.objective.value_unit]}; lower is better."
    columns = ("trial", "role", "objective", "largest shares")
    return table(columns, rows, caption=caption, texts=[1, 3])


def _unfinished(rows: pl.DataFrame) -> Markup:
    failed = rows.filter(pl.col("status") != "finished")
    if failed.is_empty():
        return paragraph("All trials finished.", "soft")
    lines = [
        (trial, status, without_folders(reason or ""))
        for trial, status, reason in failed.select("trial", "status", "reason").iter_rows()
    ]
    caption = f"{len(lines)} of {len(rows)} trials did not finish; they are left out of the fit."
    return table(("trial", "status", "reason"), lines, caption=caption, texts=[1, 2])


def corpus_section(run: Run) -> Section:
    """Show how much text each domain has, and where it is from."""
    corpus, config = run.corpus, run.config.corpus
    sources = {**config.domains, **config.parts, **run.config.evaluation}
    order = sorted(corpus.evaluation, key=lambda domain: -run.natural.get(domain.name, 0.0))
    rows = [_corpus_row(run, domain, sources[domain.name]) for domain in order]
    body = paragraph(
        f"Tokenizer: {corpus.tokenizer}, {count_text(corpus.vocab_size)} entries. Held-out"
        " documents are never trained on; targets have no training text at all. Shares are of the"
        " whole domains; documents, tokens and text are what was prepared of them."
    )
    prepared = ("documents", "tokens", "text", "held-out tokens")
    columns = ("domain", "share", "whole domain", *prepared, "source")
    styles = ["" if domain.train is not None else "weak" for domain in order]
    return Section("corpus", "Corpus", body + table(columns, rows, texts=[7], styles=styles))


def _corpus_row(run: Run, domain: Domain, config: SourceConfig) -> tuple[str, ...]:
    source, train = _source(config), domain.train
    is_here = not domain.validation.is_elsewhere
    held_out = count_text(domain.validation.tokens) if is_here else ""
    if train is None:
        return (domain.name, "target", "", "", "", "", held_out, source)
    share = share_text(run.natural.get(domain.name) or 0.0)
    whole = short_count(run.inventory[domain.name])
    documents = count_text(train.documents) if train.documents else ""
    length = bytes_text(train.bytes) if train.bytes else ""
    text = (documents, count_text(train.tokens), length) if is_here else ("", "", "")
    return (domain.name, share, whole, *text, held_out, source)


def _source(source: SourceConfig) -> str:
    if source.environment is not None:
        return f"installed packages: {source.environment}"
    if isinstance(source, DomainConfig) and source.mixed is not None:
        return "made of " + ", ".join(source.mixed.domains)
    if not source.has_text:
        return "the trainer's own"
    files = source.data_files or []
    names = [files] if isinstance(files, str) else files
    parts = [*source.paths, source.name or "", *names]
    return without_folders(", ".join(part for part in parts if part))


def provenance_section(run: Run) -> Section:
    """Show what the answer was made from: steps, seeds, versions and the configuration."""
    before = {step: took for step, took in run.log.seconds.items() if step != "report"}
    steps = [(step, run.log.fingerprint(step), duration(took)) for step, took in before.items()]
    body = table(
        ("step", "fingerprint", "took"), steps, caption="Steps.", texts=[1], is_sortable=False
    )
    seeds = sorted(set(run.validation.trials.table["seed"])) if run.is_done("validate") else []
    unknown = "not asked for without --trust" if run.is_foreign else "not a repository"
    entries = [
        ("machine of the report", machine()),
        ("commit of the working directory", commit_of(run) or unknown),
        ("corpus", run.corpus.fingerprint),
        ("seed", str(run.config.seed)),
        *([("seeds of the validation", ", ".join(map(str, seeds)))] if seeds else []),
        *package_versions().items(),
    ]
    body += table(("what", "value"), entries, texts=[1], caption="Versions.", is_sortable=False)
    config = yaml.safe_dump(_portable(dump_config(run.config)), sort_keys=False, allow_unicode=True)
    return Section("provenance", "Provenance", body + folded("Configuration, as resolved", config))


def _portable(value: Any) -> Any:
    """Return values with the folders of absolute paths left out."""
    if isinstance(value, dict):
        return {key: _portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner) for inner in value]
    return without_folders(value) if isinstance(value, str) else value
