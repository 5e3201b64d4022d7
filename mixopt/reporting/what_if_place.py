"""The section of the page where a reader turns the mixture: the what-if, computed in the page."""

from __future__ import annotations

from mixopt.errors import PluginError
from mixopt.reporting.page import PageSection, paragraph
from mixopt.run_directory import Run
from mixopt.what_if import what_if_data, what_if_section

TITLE = "What if"


def what_if_place(run: Run) -> PageSection:
    """Return the what-if of a run, or a line that says why there is none."""
    try:
        found = what_if_section(what_if_data(run))
    except PluginError as error:
        why = str(error)
        return PageSection("what-if", TITLE, paragraph(f"{why[:1].upper()}{why[1:]}."))
    return PageSection("what-if", TITLE, found.body, found.style, found.script)
