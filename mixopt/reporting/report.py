"""The report of a run: one static page with the answer first, and where it comes from.

    report.html          the page; needs no network and no other file
    figures/<name>.svg   its figures

Every number is read from the run directory, so that writing the page again gives the same page.
It names no host, no user and no absolute path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mixopt import plots
from mixopt.config import dump_config
from mixopt.mixture import Mixture
from mixopt.objective import UNITS
from mixopt.proposals import Recommendation, Validation, named
from mixopt.reporting.experts_section import experts_section
from mixopt.reporting.page import (
    PageSection,
    bullets,
    facts,
    folded,
    heading,
    page,
    paragraph,
    table,
)
from mixopt.reporting.readiness_table import readiness_section
from mixopt.reporting.sections import Pictures, corpus_section, design_section, fit_section
from mixopt.reporting.validation_section import (
    costs_table,
    prediction_section,
    standing_style,
    validation_section,
)
from mixopt.run_directory import Run
from mixopt.system import (
    difference_text,
    duration,
    interval_text,
    machine,
    package_versions,
    ratio_text,
    share_text,
    short_count,
    without_folders,
    write_text,
)


def write_report(run: Run) -> Path:
    """Write `report.html` and the figures of a run whose proposal is made.

    Args:
        run: The run; where it is not validated, the page says so.

    Returns:
        The page.

    Raises:
        RunError: There is no proposal yet, or the folder cannot be written.
    """
    run.require("propose")
    pictures = Pictures(run.path / "figures")
    validation = run.validation if run.is_done("validate") else None
    sections = list(_sections(run, validation, pictures))
    goal = f"Minimises {run.objective.describe()}, in {UNITS[run.objective.value_unit]}."
    own = run.proposal.is_own
    whose = "of your own, edited in proposal.yaml" if own else "proposed by mixopt"
    subtitle = f"A data mixture {whose}. {goal}"
    path = run.path / "report.html"
    write_text(path, page(run.config.name, subtitle, _answer(run, validation, pictures), sections))
    return path


def _sections(run: Run, validation: Validation | None, pictures: Pictures) -> Iterable[PageSection]:
    warnings = [*(run.recommendation.warnings if validation else ()), *run.proposal.warnings]
    warnings += [f"Active constraint: {limit}." for limit in run.proposal.binding]
    if warnings:
        lines = bullets(without_folders(line) for line in warnings)
        yield PageSection("warnings", "Before you train on it", lines)
    if validation is not None:
        yield validation_section(run, pictures)
        yield prediction_section(run, pictures)
    yield fit_section(run, pictures)
    yield readiness_section(run)
    experts = experts_section(run, pictures)
    if experts is not None:
        yield experts
    yield design_section(run, pictures)
    yield corpus_section(run)
    yield _provenance(run)


def _answer(run: Run, validation: Validation | None, pictures: Pictures) -> str:
    """Return the verdict, the numbers that matter and the proposed mixture."""
    proposal = run.proposal
    if validation is None:
        body = paragraph("Not validated yet; the next step is: mixopt validate", "verdict")
        title = "The mixture that you edited" if proposal.is_own else "The proposed mixture"
        mixture, epochs, called = proposal.mixture, proposal.epochs, "proposed"
    else:
        found = run.recommendation
        body = paragraph(found.headline, f"verdict {standing_style(found)}".strip())
        title, called = "The recommended mixture", "recommended"
        mixture, epochs = found.mixture, found.epochs
    body += facts(_facts(run, validation))
    body += heading(title) + _mixture_table(mixture, proposal.natural, epochs, called, run)
    if validation is not None:
        body += costs_table(run)
    drawn = plots.plot_shares(proposal.natural, mixture, called)
    return body + pictures.show("proposal", drawn, f"The {called} share of each domain.")


def _facts(run: Run, validation: Validation | None) -> Iterable[tuple[str, str, str]]:
    proposal, unit = run.proposal, UNITS[run.objective.value_unit]
    if validation is not None:
        yield from _gain_facts(run.recommendation, unit)
    else:
        gain = proposal.gains["natural"]
        remark = f"{unit}, 90%: {interval_text(gain.low, gain.high)}"
        yield "predicted gain over natural", difference_text(gain.value), remark
    if proposal.stability is not None:
        moved = proposal.stability
        remark = f"mean share that moves over {moved.refits} refits on resampled trials"
        yield "stability of the proposal", share_text(moved.mean), remark


def _gain_facts(found: Recommendation, unit: str) -> Iterable[tuple[str, str, str]]:
    """Return the gains over what people would train on otherwise."""
    for name in ("natural", "uniform", "unimax", "best_trial"):
        gain = found.gains.get(name)
        if gain is not None:
            one = gain.validated
            remark = f"{unit}, 95%: {interval_text(one.low, one.high)}, {gain.seeds} seeds"
            yield f"gain over {named(name)}", difference_text(one.value), remark


def _mixture_table(
    mixture: Mixture, natural: Mixture, epochs: Mapping[str, float] | None, called: str, run: Run
) -> str:
    rows = []
    for name, weight in sorted(mixture.items(), key=lambda item: -item[1]):
        before = natural[name]
        row = [name, share_text(before), share_text(weight), ratio_text(weight, before)]
        rows.append(row + ([f"{epochs[name]:.2f}"] if epochs else []))
    columns = ["domain", "natural", called, "times natural"] + (["epochs"] if epochs else [])
    target = run.config.propose.target_tokens
    caption = "Shares of the training tokens."
    if epochs and target:
        caption += f" Epochs are passes over a domain in {short_count(target)} tokens."
    return table(columns, rows, caption=caption)


def _provenance(run: Run) -> PageSection:
    before = {step: took for step, took in run.seconds.items() if step != "report"}
    steps = [(step, run.fingerprint(step), duration(took)) for step, took in before.items()]
    body = table(("step", "fingerprint", "took"), steps, caption="Steps.", texts=[1])
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
    body += table(("what", "value"), entries, texts=[1], caption="Versions.")
    config = yaml.safe_dump(_portable(dump_config(run.config)), sort_keys=False, allow_unicode=True)
    return PageSection(
        "provenance", "Provenance", body + folded("Configuration, as resolved", config)
    )


def _portable(value: Any) -> Any:
    """Return values with the folders of absolute paths left out."""
    if isinstance(value, dict):
        return {key: _portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner) for inner in value]
    return without_folders(value) if isinstance(value, str) else value
