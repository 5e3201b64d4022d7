"""The decision page of a run: the answer on its first screen, and below where it comes from.

    report.html          the page; needs no network and no other file
    figures/<name>.svg   its figures

Every number is read from the run directory, so that writing the page again gives the same page.
It names no host, no user and no absolute path.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mixopt.reporting.answer import answer_of, first_screen
from mixopt.reporting.fit_section import fit_section
from mixopt.reporting.page import Section, page_html
from mixopt.reporting.page_figures import Pictures
from mixopt.reporting.run_sections import corpus_section, provenance_section, trials_section
from mixopt.reporting.validation_section import validation_section
from mixopt.reporting.what_if import what_if_section
from mixopt.run_directory import Run
from mixopt.system import write_text


def write_report(run: Run) -> Path:
    """Write `report.html` and the figures of a run whose proposal is made.

    Args:
        run: The run; where it is not validated, the page shows what is predicted.

    Returns:
        The page.

    Raises:
        RunError: There is no proposal yet, or the folder cannot be written.
    """
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
