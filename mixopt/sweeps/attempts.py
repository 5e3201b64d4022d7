"""Retries: a group whose worker died or hung is trained again, in halves if memory was short.

A proxy that raises gives its reason, and would again; a worker that is killed may have had bad
luck. So its group is handed out a second time, and where that fails too, its trials have failed.
Where memory was short, halves are handed out, down to single trials. A place that went away says
nothing about the group, which is handed out again, more often than that. What a place had no room
for is handed out as a group of its own. All of this is noted in `groups.json` before it trains: a
resumed sweep forms the same groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mixopt.errors import RunError
from mixopt.sweeps.contract import RETRIES
from mixopt.sweeps.group_runner import GroupOutcome
from mixopt.sweeps.result_files import GROUPS
from mixopt.system import check_names, read_json, write_json
from mixopt.trials import Trial

_Groups = list[Annotated[list[str], Field(min_length=1)]]


def read_groups(folder: Path) -> list[list[str]]:
    """Return the names of the trials that train together; none where no groups were formed."""
    path = folder / GROUPS
    if not path.exists():
        return []
    try:
        groups: list[list[str]] = read_json(path, _Groups)
        names = Counter(name for group in groups for name in group)
        check_names(names, f"{path}: trial", RunError)
        twice = [name for name, times in names.items() if times > 1]
        if twice:
            raise RunError(f"{path}: trial {twice[0]!r} is in two places")
    except RunError as error:
        raise RunError(f"{error}; delete {path}, and the groups are formed again") from error
    return groups


def write_groups(folder: Path, groups: Sequence[Sequence[str]]) -> None:
    """Keep the groups."""
    write_json(folder / GROUPS, [list(group) for group in groups])


class Attempts:
    """The groups of a sweep that train, some of them not for the first time.

    Attributes:
        waiting: All groups that were handed out, by number; more are added as outcomes arrive.
        lost: How often trials were lost with the place where they were.
        retried: How often trials were handed out again, for whatever reason.
    """

    def __init__(
        self,
        folder: Path,
        groups: Sequence[Sequence[Trial]],
        finished: Sequence[str],
        retries: int = RETRIES,
    ) -> None:
        """Take those groups that have a trial without a result."""
        self._folder, self._retries = folder, retries
        self._groups = [[trial.name for trial in group] for group in groups]
        self._died: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self.lost = self.retried = 0
        known = set(finished)
        self.waiting: dict[int, Sequence[Trial]] = {
            number: group
            for number, group in enumerate(groups)
            if any(trial.name not in known for trial in group)
        }
        self._next = len(groups)

    def settle(self, outcome: GroupOutcome) -> tuple[str, Sequence[Trial]]:
        """Hand out again what an outcome has no result for, where that may help."""
        rest = self.without_result(outcome)
        trained = [] if outcome.reason is None else rest[: outcome.trained]
        left = rest[len(trained) :]
        halved = outcome.fault == "memory" and len(trained) > 1
        if (
            not trained
            or outcome.fault is None
            or (not halved and self._is_final(outcome, trained))
        ):
            self._hand_out([left])
            return "", trained
        half = (len(trained) + 1) // 2
        self._hand_out([*([trained[:half], trained[half:]] if halved else [trained]), left])
        self.retried += len(trained)
        more = f" and {len(trained) - 1} more" if len(trained) > 1 else ""
        how = ", in halves" if halved else ""
        return f"{outcome.reason}; retrying {trained[0].name}{more}{how}", []

    def without_result(self, outcome: GroupOutcome) -> Sequence[Trial]:
        """Return the members of a group that an outcome has no result for."""
        found = {result.trial for result in outcome.results}
        return [trial for trial in self.waiting[outcome.group] if trial.name not in found]

    def reason(self, outcome: GroupOutcome) -> str:
        """Return why members have no results, and how often they were tried."""
        if outcome.fault is None or outcome.reason is None:
            return outcome.reason or ""
        if outcome.fault == "lost":
            return f"lost {self._retries + 1} times: {outcome.reason}"
        return f"tried twice: {outcome.reason}"

    def _is_final(self, outcome: GroupOutcome, trained: Sequence[Trial]) -> bool:
        """Count a fault; tell whether it was the last that is allowed."""
        lost = outcome.fault == "lost"
        count, most = (self._lost, self._retries) if lost else (self._died, 1)
        count.update(trial.name for trial in trained)
        self.lost += len(trained) * lost
        return max(count[trial.name] for trial in trained) > most

    def _hand_out(self, pieces: Sequence[Sequence[Trial]]) -> None:
        pieces = [piece for piece in pieces if piece]
        if not pieces:
            return
        self._note([[trial.name for trial in piece] for piece in pieces])
        for piece in pieces:
            self.waiting[self._next] = piece
            self._next += 1

    def _note(self, pieces: list[list[str]]) -> None:
        """Keep the pieces as groups, if they are none yet."""
        names = {name for piece in pieces for name in piece}
        place = next(at for at, group in enumerate(self._groups) if names & set(group))
        others = [name for name in self._groups[place] if name not in names]
        changed = [*([others] if others else []), *pieces]
        if changed != [self._groups[place]]:
            self._groups[place : place + 1] = changed
            write_groups(self._folder, self._groups)
