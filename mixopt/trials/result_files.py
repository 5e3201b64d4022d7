"""Trials and their results as JSON: between processes, and one file a finished trial.

The results of a group are written in one piece first (`.group-<n>.json`, then the trials'
files, then the group's file goes), so that a kill between two files cannot make a finished
trial train again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.routing import counts_from_json, counts_to_json
from mixopt.system import read_json, write_json
from mixopt.trials.proxy import Losses, Trial, TrialResult

GROUPS, ROUNDS = "groups.json", "rounds.json"  # which trials train together; which were chosen


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """Return a trial as plain values."""
    return {
        "name": trial.name,
        "mixture": dict(trial.mixture),
        "seed": trial.seed,
        "role": trial.role,
        "round": trial.round,
    }


def trial_from_json(content: dict[str, Any]) -> Trial:
    """Read what `trial_to_json` made."""
    return Trial(**{**content, "mixture": Mixture(content["mixture"])})


def result_to_json(result: TrialResult) -> dict[str, Any]:
    """Return a result as plain values; one without experts does not name them."""
    content = asdict(replace(result, experts=None))
    del content["experts"]
    if result.experts is not None:
        content["experts"] = counts_to_json(result.experts)
    return content


def result_from_json(content: dict[str, Any]) -> TrialResult:
    """Read what `result_to_json` made."""
    losses, experts = content["losses"], content.get("experts")
    return TrialResult(
        **{
            **content,
            "losses": Losses(**losses) if losses else None,
            "curve": tuple(Losses(**entry) for entry in content["curve"]),
            "experts": counts_from_json(experts) if experts else None,
        }
    )


def trial_paths(folder: Path) -> list[Path]:
    """Return the files of the trials of a folder that have ended."""
    return [path for path in folder.glob("[!.]*.json") if path.name not in (GROUPS, ROUNDS)]


class TrialFolder:
    """One file for each finished, diverged or failed trial."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._recover()

    def results(self, trials: Sequence[Trial]) -> dict[str, TrialResult]:
        """Return the results that are there, by trial.

        Raises:
            RunError: A file that belongs to another mixture or seed than the trial of its name.
        """
        found = {}
        for trial in trials:
            path = self._file(trial.name)
            if path.exists():
                content = read_json(path)
                if not isinstance(content, dict) or content.get("trial") != trial_to_json(trial):
                    raise RunError(
                        f"{path}: is of another mixture or seed; delete it to train again"
                    )
                found[trial.name] = result_from_json(content["result"])
        return found

    def write(self, group: int, trials: Sequence[Trial], results: Sequence[TrialResult]) -> None:
        """Keep the results of a group, all or none."""
        entries = [
            {"trial": trial_to_json(trial), "result": result_to_json(result)}
            for trial, result in zip(trials, results, strict=True)
        ]
        journal = self.path / f".group-{group:05d}.json"
        write_json(journal, entries)
        self._split(journal, entries)

    def forget(self, trial: str) -> None:
        """Delete a trial's file, so that it is trained again."""
        self._file(trial).unlink(missing_ok=True)

    def _recover(self) -> None:
        for journal in sorted(self.path.glob(".group-*.json")):
            self._split(journal, read_json(journal))

    def _split(self, journal: Path, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            write_json(self._file(entry["trial"]["name"]), entry)
        journal.unlink()

    def _file(self, trial: str) -> Path:
        return self.path / f"{trial}.json"
