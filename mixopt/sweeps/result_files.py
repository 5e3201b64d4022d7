"""Trials and their results as JSON: between processes, and one file a finished trial.

The results of a group are written in one piece first (`.group-<n>.json`, then the trials'
files, then the group's file goes), so that a kill between two files cannot make a finished
trial train again. Each file carries its seal (mixopt.system.manifest).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mixopt.errors import MixoptError, MixtureError, RunError
from mixopt.mixture import Mixture
from mixopt.routing import Assignments, ExpertCounts
from mixopt.system import (
    Count,
    FileShape,
    check_name,
    checked_as,
    inside,
    read_sealed,
    write_sealed,
)
from mixopt.trials import Losses, Role, Status, Trial, TrialResult


class TrialShape(FileShape):
    """A trial in a file."""

    name: str
    mixture: dict[str, float]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    role: Role
    round: Annotated[int, Field(ge=0, lt=1 << 31)]


class LossesShape(FileShape):
    """Losses in a file."""

    tokens: Count
    nats_per_token: dict[str, float]
    bits_per_byte: dict[str, float]
    tasks: dict[str, float] = Field(default_factory=dict)


class ResultShape(FileShape):
    """A result in a file."""

    trial: str
    status: Status
    tokens: Count
    parameters: Count
    seconds: Annotated[float, Field(ge=0)]
    losses: LossesShape | None = None
    curve: tuple[LossesShape, ...] = ()
    reason: str | None = None
    experts: dict[str, Any] | None = None


class EntryShape(FileShape):
    """What a trial's file holds, and the fingerprint of what it was trained by and on."""

    made_by: str
    trial: TrialShape
    result: ResultShape


class JournalShape(FileShape):
    """What the journal of a group holds."""

    entries: list[EntryShape]


# Which trials train together; which were chosen; how many a kind of device trains together.
GROUPS, ROUNDS, SIZES = "groups.json", "rounds.json", "group_sizes.json"
WORK = "work"  # folder of the groups that train


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """Return a trial as plain values."""
    return {
        "name": trial.name,
        "mixture": dict(trial.mixture),
        "seed": trial.seed,
        "role": trial.role,
        "round": trial.round,
    }


def trial_from_json(content: object, where: str = "a trial") -> Trial:
    """Read what `trial_to_json` made."""
    return _trial(checked_as(TrialShape, content, where), where)


def result_to_json(result: TrialResult) -> dict[str, Any]:
    """Return a result as plain values; absent experts and tasks are left out."""
    content = asdict(replace(result, experts=None))
    del content["experts"]
    for losses in (content["losses"], *content["curve"]):
        if losses is not None and not losses["tasks"]:
            del losses["tasks"]
    if result.experts is not None:
        content["experts"] = {
            "train": result.experts.train.as_dict(),
            "held_out": result.experts.held_out.as_dict(),
        }
    return content


def result_from_json(content: object, where: str = "a result") -> TrialResult:
    """Read what `result_to_json` made."""
    return _result(checked_as(ResultShape, content, where), where)


def trial_paths(folder: Path) -> list[Path]:
    """Return the files of the trials of a folder that have ended."""
    return [path for path in folder.glob("[!.]*.json") if path.name not in (GROUPS, ROUNDS, SIZES)]


def read_entry(path: Path, made_by: str | None = None) -> tuple[Trial, TrialResult]:
    """Read a trial's file: the trial and what became of it."""
    content = read_sealed(path, EntryShape, mend="delete it to train the trial again")
    if made_by not in (None, content.made_by):
        raise RunError(
            f"{path}: was trained by another configuration or on another corpus; use another --out,"
            " or delete it to train the trial again"
        )
    return _trial(content.trial, str(path)), _result(content.result, str(path))


def trial_fingerprint(step: str, corpus: str) -> str:
    """Return the fingerprint that results carry: of their step's configuration and their corpus."""
    return hashlib.sha256(f"{step} {corpus}".encode()).hexdigest()[:16]


class TrialFolder:
    """One file for each finished, diverged or failed trial."""

    def __init__(self, path: Path, made_by: str = "") -> None:
        """Open a folder; what a kill left half done is done first."""
        self.path, self._made_by = path, made_by
        self._recover()

    def results(self, trials: Sequence[Trial]) -> dict[str, TrialResult]:
        """Return the existing results, by trial."""
        found = {}
        for trial in trials:
            path = self._file(trial.name)
            if path.exists():
                own, result = read_entry(path, self._made_by)
                if trial_to_json(own) != trial_to_json(trial):
                    raise RunError(
                        f"{path}: is for another mixture or seed; delete it to train again"
                    )
                found[trial.name] = result
        return found

    def write(self, group: int, trials: Sequence[Trial], results: Sequence[TrialResult]) -> None:
        """Keep the results of a group, all or none."""
        entries = [
            {
                "made_by": self._made_by,
                "trial": trial_to_json(trial),
                "result": result_to_json(result),
            }
            for trial, result in zip(trials, results, strict=True)
        ]
        journal = self.path / f".group-{group:05d}.json"
        write_sealed(journal, {"entries": entries})
        self._split(journal, entries)

    def forget(self, trial: str) -> None:
        """Delete a trial's file, so that it is trained again."""
        self._file(trial).unlink(missing_ok=True)

    def _recover(self) -> None:
        for journal in sorted(self.path.glob(".group-*.json")):
            mend = "delete it to train its trials again"
            content = read_sealed(journal, JournalShape, mend=mend)
            self._split(
                journal, [entry.model_dump(exclude_unset=True) for entry in content.entries]
            )

    def _split(self, journal: Path, entries: Sequence[dict[str, Any]]) -> None:
        for entry in entries:
            write_sealed(self._file(entry["trial"]["name"]), entry)
        journal.unlink()

    def _file(self, trial: str) -> Path:
        return inside(self.path, f"{check_name(trial, 'trial', RunError)}.json")


def _trial(found: TrialShape, where: str) -> Trial:
    check_name(found.name, f"{where}: trial", RunError)
    try:
        mixture = Mixture(found.mixture)
    except MixtureError as error:
        raise RunError(f"{where}: trial {found.name!r}: {error}") from error
    return Trial(found.name, mixture, found.seed, found.role, found.round)


def _result(found: ResultShape, where: str) -> TrialResult:
    return TrialResult(
        found.trial,
        found.status,
        found.tokens,
        found.parameters,
        found.seconds,
        None if found.losses is None else _losses(found.losses),
        tuple(_losses(entry) for entry in found.curve),
        found.reason,
        None if found.experts is None else _experts(found.experts, where),
    )


def _losses(found: LossesShape) -> Losses:
    return Losses(found.tokens, found.nats_per_token, found.bits_per_byte, found.tasks)


def _experts(content: dict[str, Any], where: str) -> ExpertCounts:
    try:
        train, held_out = (
            Assignments.from_dict(content.get(name), f"{where}: experts.{name}")
            for name in ("train", "held_out")
        )
    except MixoptError as error:
        raise RunError(str(error)) from error
    return ExpertCounts(train, held_out)
