"""Files of trials: one JSON file for each trial that has ended, and one log for each attempt.

`<trial>.json` has the trial, its result and the fingerprint of configuration and corpus, sealed
(mixopt.system.manifest). `logs/<first trial>-<attempt>.log` has the output of an attempt.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mixopt.errors import RunError
from mixopt.mixture import Mixture
from mixopt.routing import Assignments, ExpertCounts
from mixopt.system import (
    Count,
    FileShape,
    check_name,
    check_names,
    checked_as,
    inside,
    read_json,
    read_sealed,
    write_json,
    write_sealed,
)
from mixopt.trials import Losses, Role, Status, Trial, TrialResult

# In a folder of trials:
GROUPS = "groups.json"  # the names of the trials of each group
ROUNDS = "rounds.json"  # the rounds of the design
SIZE = "group_size.json"
FILES = "files"  # folder: what a proxy saves of each trial
WORK = "work"  # folder: the groups that train
LOGS = "logs"  # folder
NAME_LENGTH = 40  # characters of a trial's name in the names of its group's folder and log
_Groups = list[Annotated[list[str], Field(min_length=1)]]


def _experts(content: dict[str, Any]) -> ExpertCounts:
    train = Assignments.from_dict(content.get("train"), "experts.train")
    held_out = Assignments.from_dict(content.get("held_out"), "experts.held_out")
    return ExpertCounts(train, held_out)


class TrialShape(FileShape):
    """A trial in a file."""

    name: Annotated[str, AfterValidator(lambda name: check_name(name, "trial"))]
    mixture: Annotated[dict[str, float], AfterValidator(Mixture)]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    role: Role
    round: Annotated[int, Field(ge=0, lt=1 << 31)]


class ResultShape(FileShape):
    """A result in a file."""

    trial: str
    status: Status
    tokens: Count
    parameters: Count
    seconds: Annotated[float, Field(ge=0)]
    losses: Losses | None = None
    curve: tuple[Losses, ...] = ()
    reason: str | None = None
    experts: Annotated[dict[str, Any], AfterValidator(_experts)] | None = None


class EntryShape(FileShape):
    """The file of a trial, with the fingerprint of its configuration and corpus."""

    made_by: str
    trial: TrialShape
    result: ResultShape


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """Return a trial as JSON values."""
    return {**vars(trial), "mixture": dict(trial.mixture)}


def result_to_json(result: TrialResult) -> dict[str, Any]:
    """Return a result as JSON values, without absent experts and tasks."""
    content = asdict(replace(result, experts=None), dict_factory=_present)
    if result.experts is not None:
        sides = vars(result.experts).items()
        content["experts"] = {side: counts.to_json() for side, counts in sides}
    return content


def _present(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if value or name not in ("experts", "tasks")}


def valid_result(result: TrialResult | dict[str, Any]) -> TrialResult:
    """Check a result, or parse the output of `result_to_json`."""
    content = result_to_json(result) if isinstance(result, TrialResult) else result
    return TrialResult(**dict(checked_as(ResultShape, content, "a result")))


def trial_paths(folder: Path) -> list[Path]:
    """Return the files of the trials that have ended."""
    return [path for path in folder.glob("[!.]*.json") if path.name not in (GROUPS, ROUNDS, SIZE)]


def read_entry(path: Path, made_by: str | None = None) -> tuple[Trial, TrialResult]:
    """Read a trial and its result."""
    content = read_sealed(path, EntryShape, hint="delete it to train the trial again")
    if made_by not in (None, content.made_by):
        raise RunError(
            f"{path}: was trained by another configuration or on another corpus; use another --out,"
            " or delete it to train the trial again"
        )
    return Trial(**dict(content.trial)), TrialResult(**dict(content.result))


def trial_fingerprint(step: str, corpus: str) -> str:
    """Return the fingerprint of results: a hash of the step's configuration and the corpus."""
    return hashlib.sha256(f"{step} {corpus}".encode()).hexdigest()[:16]


class TrialFolder:
    """The files of finished, diverged and failed trials."""

    def __init__(self, path: Path, made_by: str = "") -> None:
        """Open a folder, which need not exist."""
        self.path = path
        self._made_by = made_by

    def results(self, trials: Sequence[Trial]) -> dict[str, TrialResult]:
        """Return the existing results, by trial."""
        results = {}
        for trial in trials:
            path = self._file(trial.name)
            if not path.exists():
                continue
            recorded_trial, result = read_entry(path, self._made_by)
            if recorded_trial != trial:
                raise RunError(f"{path}: is for another mixture or seed; delete it to train again")
            results[trial.name] = result
        return results

    def write(self, trials: Sequence[Trial], results: Sequence[TrialResult]) -> None:
        """Save the results of some trials."""
        for trial, result in zip(trials, results, strict=True):
            entry = {"trial": trial_to_json(trial), "result": result_to_json(result)}
            write_sealed(self._file(trial.name), {"made_by": self._made_by, **entry})

    def forget(self, trial: str) -> None:
        """Delete a trial's file; the trial is then trained again."""
        self._file(trial).unlink(missing_ok=True)

    def _file(self, trial: str) -> Path:
        return inside(self.path, f"{check_name(trial, 'trial', RunError)}.json")


def read_groups(folder: Path) -> list[list[str]]:
    """Return the names of the trials of each saved group; empty before the first sweep."""
    path = folder / GROUPS
    if not path.exists():
        return []
    try:
        groups: list[list[str]] = read_json(path, _Groups)
        counts = Counter[str]()
        for names in groups:
            counts.update(names)
        check_names(counts, f"{path}: trial", RunError)
        for name, count in counts.items():
            if count > 1:
                raise RunError(f"{path}: trial {name!r} is in two groups")
    except RunError as error:
        raise RunError(f"{error}; delete {path}, and the groups are formed again") from error
    return groups


def write_groups(folder: Path, groups: Sequence[Sequence[str]]) -> None:
    """Save the names of the trials of each group."""
    write_json(folder / GROUPS, groups)


def log_of_trial(folder: Path, trial: str, groups: Sequence[Sequence[str]]) -> Path | None:
    """Return the log of the last attempt at a trial's group; None if there is none."""
    first = trial
    for names in groups:
        if trial in names:
            first = names[0]
            break
    prefix = first[:NAME_LENGTH]
    files = filter(Path.is_file, (folder / LOGS).glob("*.log"))
    logs = [log for log in files if log.name.rpartition("-")[0] == prefix]
    return max(logs, key=lambda log: log.stat().st_mtime_ns, default=None)
