"""The runs under a folder, the newest first: `mixopt list`.

A directory that is a run's and cannot be read is a row with the reason. Nothing that a run names
is imported, and no trial is opened: what is shown comes from the small files of each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import ConfigError, MixoptError
from mixopt.pipeline.rounds import planned_trials
from mixopt.proposals import named
from mixopt.reporting import table_text
from mixopt.run_directory import STEPS, SWEEP, VALIDATE, Run, load_run
from mixopt.system import is_in_use

RECORD = "config.yaml"
DEEPEST = 3  # folders below the one that is asked about
NATURAL = "natural"


@dataclass(frozen=True)
class ListedRun:
    """One run of a folder.

    Attributes:
        path: The run directory.
        state: `done`, `running sweep`, `interrupted in fit`, ... or `damaged`.
        domains: How many there are.
        ended: Trials that have ended.
        trials: Trials that are planned; None before there is a design.
        recommendation: The mixture that is recommended; None before validation.
        gain: Its validated gain over the natural mixture; None where it is not known.
        unit: Of the gain.
        fault: Why the directory cannot be read; None where it can.
        changed: When its record of steps was last written, in seconds since 1970.
    """

    path: str
    state: str
    domains: int | None = None
    ended: int | None = None
    trials: int | None = None
    recommendation: str | None = None
    gain: float | None = None
    unit: str | None = None
    fault: str | None = None
    changed: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def list_runs(folder: Path) -> list[ListedRun]:
    """Return the runs under a folder, the newest first.

    Raises:
        ConfigError: There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"list: {folder}: no such folder")
    found = [_listed(path) for path in _directories(folder, DEEPEST)]
    return sorted(found, key=lambda run: (-run.changed, run.path))


def listed_text(found: Sequence[ListedRun], folder: Path) -> str:
    """Return the table of runs, and the reason of each one that cannot be read."""
    if not found:
        return f"{folder}: no runs"
    columns = ("run", "state", "domains", "trials", "recommendation", "gain")
    rows = [_row(run) for run in found]
    lines = [table_text(f"Runs under {folder}, newest first", columns, rows, texts=_TEXTS)]
    lines += [f"{run.path}: {run.fault}" for run in found if run.fault]
    if any(run.gain is not None for run in found):
        lines.append("gain: over the natural mixture, validated (above 0 is better)")
    return "\n".join(lines).rstrip("\n")


_TEXTS = ("state", "recommendation")


def _row(run: ListedRun) -> tuple[str, ...]:
    trials = "" if run.trials is None else f"{run.ended} of {run.trials}"
    if run.trials is not None and run.ended == run.trials:
        trials = str(run.trials)
    gain = "" if run.gain is None else f"{run.gain:+.4f}"
    domains = "" if run.domains is None else str(run.domains)
    return (run.path, run.state, domains, trials, run.recommendation or "", gain)


def _directories(folder: Path, depth: int) -> Iterator[Path]:
    """Give the run directories at or below a folder; nothing is looked for inside of a run."""
    if (folder / RECORD).is_file() or (folder / "steps.json").is_file():
        if not (folder / "metrics.jsonl").exists():  # that of a pretraining
            yield folder
        return
    if depth:
        try:
            entries = sorted(path for path in folder.iterdir() if path.is_dir())
        except OSError:
            return
        for path in entries:
            if not path.name.startswith(".") and not path.is_symlink():
                yield from _directories(path, depth - 1)


def _listed(path: Path) -> ListedRun:
    changed = _changed(path)
    try:
        return _known(load_run(path), changed)
    except MixoptError as error:
        return ListedRun(str(path), "damaged", fault=_without(path, str(error)), changed=changed)


def _known(run: Run, changed: float) -> ListedRun:
    done = [step.name for step in STEPS if run.is_done(step.name)]
    has_design = "design" in done
    ended = len(SWEEP.trial_files(run.path)) if has_design else None
    trials = planned_trials(run) if has_design else None
    domains = len(run.config.corpus.domains)
    state = _state(run, done)
    if VALIDATE.name not in done:
        return ListedRun(str(run.path), state, domains, ended, trials, changed=changed)
    found = run.recommendation
    gain = found.gains.get(NATURAL)
    value = 0.0 if found.chosen == NATURAL else None if gain is None else gain.validated.value
    return ListedRun(
        str(run.path), state, domains, ended, trials, named(found.chosen), value, found.unit,
        changed=changed,
    )  # fmt: skip


def _state(run: Run, done: Sequence[str]) -> str:
    waiting = [step.name for step in STEPS if step.name not in done]
    if not waiting:
        return "done"
    if is_in_use(run.path):
        return f"running: {waiting[0]}"
    begun = [name for name in waiting if run.is_begun(name)]
    return f"interrupted: {begun[0]}" if begun else f"next: {waiting[0]}"


def _changed(path: Path) -> float:
    times = [0.0]
    for name in (RECORD, "steps.json"):
        try:
            times.append((path / name).stat().st_mtime)
        except OSError:
            continue
    return max(times)


def _without(path: Path, message: str) -> str:
    """Return a message without the path that the line begins with already."""
    return message.removeprefix(f"{path}: ")
