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
from mixopt.objective import UNITS
from mixopt.reporting.answer import answer_of, first_screen
from mixopt.reporting.experts_section import experts_part
from mixopt.reporting.fit_section import fit_section
from mixopt.reporting.mixture_figures import plot_design
from mixopt.reporting.page import Section, folded, heading, page_html, paragraph, table
from mixopt.reporting.page_figures import Pictures
from mixopt.reporting.validation_section import validation_section
from mixopt.reporting.what_if import what_if_section
from mixopt.run_directory import Run
from mixopt.system import (
    bytes_text,
    count_text,
    duration,
    loss_text,
    machine,
    package_versions,
    share_text,
    short_count,
    without_folders,
    write_text,
)

MAX_SHARES = 4  # domains of a trial that its row names


def write_report(run: Run) -> Path:
    """Write `report.html` and the figures of a run whose proposal is made."""
    run.require("propose")
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
    before = {step: took for step, took in run.seconds.items() if step != "report"}
    steps = [(step, run.fingerprint(step), duration(took)) for step, took in before.items()]
    body = table(
        ("step", "fingerprint", "took"), steps, caption="Steps.", texts=[1], is_sortable=False
    )
    seeds = sorted(set(run.validation.trials.table["seed"])) if run.is_done("validate") else []
    unknown = "not asked for without --trust" if run.is_foreign else "not a repository"
    entries = [
        ("machine of the report", machine()),
        ("commit of the working directory", run.commit or unknown),
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
