"""What is tried once more: a group whose worker died or hung, in halves if memory was short.

A proxy that raises gives its reason, and would again; a worker that is killed may have had bad
luck. So its group is handed out a second time, and where that fails too, its trials have failed.
Halves are noted in `groups.json` before they train: a resumed sweep forms the same groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixopt.sweeps.executors import GroupOutcome
from mixopt.sweeps.groups_file import write_groups
from mixopt.trials import Trial


class Attempts:
    """The groups of a sweep that train, some of them for the second time."""

    def __init__(
        self, folder: Path, groups: Sequence[Sequence[Trial]], finished: Sequence[str]
    ) -> None:
        """Take those groups that have a trial without a result.

        Args:
            folder: Where the groups are kept.
            groups: All of them.
            finished: Trials that have a result.
        """
        self._folder = folder
        self._groups = [[trial.name for trial in group] for group in groups]
        self._second: set[int] = set()
        known = set(finished)
        self.waiting: dict[int, Sequence[Trial]] = {
            number: group
            for number, group in enumerate(groups)
            if any(trial.name not in known for trial in group)
        }
        self._next = len(groups)

    def again(self, outcome: GroupOutcome) -> str:
        """Hand out what is tried once more after an outcome; say so, or nothing."""
        if outcome.fault is None or outcome.group in self._second:
            return ""
        members = self.waiting[outcome.group]
        half = (len(members) + 1) // 2
        if outcome.fault == "memory" and half < len(members):
            pieces, how = [members[:half], members[half:]], ", in halves"
            self._split(pieces)
        else:
            pieces, how = [members], ""
        for piece in pieces:
            self.waiting[self._next] = piece
            self._second.add(self._next)
            self._next += 1
        more = f" and {len(members) - 1} more" if len(members) > 1 else ""
        return f"{outcome.reason}; {members[0].name}{more} once more{how}"

    def reason(self, outcome: GroupOutcome) -> str | None:
        """Return why a group has no results, and how often it was tried."""
        if outcome.fault is None or outcome.reason is None:
            return outcome.reason
        return f"tried twice: {outcome.reason}"

    def _split(self, pieces: Sequence[Sequence[Trial]]) -> None:
        names = [[trial.name for trial in piece] for piece in pieces]
        place = self._groups.index([name for piece in names for name in piece])
        self._groups[place : place + 1] = names
        write_groups(self._folder, self._groups)
