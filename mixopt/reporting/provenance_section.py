"""The section of the page about where the answer comes from, without machine paths."""

from __future__ import annotations

from typing import Any

import yaml

from mixopt.config import dump_config
from mixopt.reporting.page import PageSection, folded, table
from mixopt.run_directory import Run
from mixopt.system import duration, machine, package_versions, without_folders


def provenance_section(run: Run) -> PageSection:
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
