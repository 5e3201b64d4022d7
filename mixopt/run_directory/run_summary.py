"""A run in a line and as a table in a notebook: which steps are done, and what comes next.

Both are of any directory, at any time: of one where nothing is done yet, of one whose sweep is
half done, and of one that is damaged, of which they show what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mixopt.errors import MixoptError, plain_line
from mixopt.run_directory.step import STEPS, VALIDATE, Step
from mixopt.system import duration, html_table, is_in_use

if TYPE_CHECKING:
    from mixopt.config import Config
    from mixopt.proposals import Recommendation

DONE, WAITING = "done", "not done yet"


class Summarised(Protocol):
    """What is asked of a run to show it."""

    @property
    def path(self) -> Path:
        """Its directory."""
        ...

    @property
    def config(self) -> Config:
        """Its configuration."""
        ...

    @property
    def seconds(self) -> dict[str, float]:
        """How long each finished step took."""
        ...

    @property
    def recommendation(self) -> Recommendation:
        """The mixture to train on."""
        ...

    def is_done(self, step: str) -> bool:
        """Tell whether a step is done."""
        ...

    def is_begun(self, step: str) -> bool:
        """Tell whether a step was begun and is not finished."""
        ...

    def fault(self, step: str) -> str | None:
        """Say what is wrong with a finished step."""
        ...

    def command(self, step: str) -> str:
        """Return the command that runs a step."""
        ...


@dataclass(frozen=True)
class StepSummary:
    """What is known of a step: its name, its state in words, and how long it took."""

    name: str
    state: str
    took: str = ""


def run_line(run: Summarised) -> str:
    """Return the run in a line, for its `__repr__`."""
    steps = list(step_summaries(run))
    done = sum(step.state == DONE for step in steps)
    text = f"{done} of {len(steps)} steps done"
    following = next((step for step in steps if step.state != DONE), None)
    if following is not None:
        state = "" if following.state == WAITING else f", {following.state}"
        text += f"; next: {following.name}{state}"
    return f"Run({plain_line(str(run.path))!r}: {text})"


def run_html(run: Summarised) -> str:
    """Return the run as an HTML table: a row for each step."""
    steps = list(step_summaries(run))
    rows = [(step.name, step.state, step.took) for step in steps]
    caption = f"{run.config.name}: {plain_line(str(run.path))}"
    columns = ("step", "state", "took")
    return html_table(caption, columns, rows, notes=_notes(run, steps), texts=[1])


def step_summaries(run: Summarised) -> Iterator[StepSummary]:
    """Yield what is known of each step, in their order; a step that cannot be read says why."""
    for step in STEPS:
        try:
            yield StepSummary(step.name, *_state(run, step))
        except (MixoptError, OSError) as error:
            yield StepSummary(step.name, f"cannot be used: {plain_line(str(error))}")


def _state(run: Summarised, step: Step) -> tuple[str, str]:
    if run.is_done(step.name):
        return DONE, duration(run.seconds[step.name])
    fault = run.fault(step.name)
    if fault is not None:
        return f"cannot be used: {fault}", ""
    if not run.is_begun(step.name):
        return WAITING, ""
    state = "running" if is_in_use(run.path) else "interrupted"
    if step.trains:
        state += f", {len(step.trial_files(run.path))} trials ended"
    return state, ""


def _notes(run: Summarised, steps: list[StepSummary]) -> Iterator[str]:
    """Yield what the run recommends, else the command that comes next."""
    waiting = next((step for step in steps if step.state != DONE), None)
    if any(step.name == VALIDATE.name and step.state == DONE for step in steps):
        try:
            yield run.recommendation.headline
        except (MixoptError, OSError) as error:
            yield plain_line(str(error))
    if waiting is not None and not waiting.state.startswith("cannot"):
        yield f"next: {run.command(waiting.name)}"
