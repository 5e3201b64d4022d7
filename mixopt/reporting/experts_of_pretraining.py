"""What a pretraining's record says about its experts.

Load and diagnoses are of the second half of the steps so far, when experts have found their place,
or of the steps that are asked for; what compares domains is of the last probe, where it saw enough
text for that. What changes of weights did is held against the windows before them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import RoutingError
from mixopt.online import MIXTURE_LOG, LoggedChange, read_changes
from mixopt.reporting.expert_changes import change_dict, change_text, expert_changes
from mixopt.reporting.expert_figures import change_figures, moving_figures, still_figures
from mixopt.reporting.expert_options import ExpertOptions, OwnExperts
from mixopt.routing import (
    ENOUGH_SEQUENCES,
    ENOUGH_TOKENS,
    EXPERTS,
    Assignments,
    ExpertChange,
    ExpertRecord,
    ProbeResult,
    RecordedWindow,
    Summary,
    Thresholds,
    key_column,
    nothing,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERMUTATIONS = 100  # of a probe's sequences, for what chance gives


@dataclass(frozen=True, eq=False)
class PretrainingExperts:
    """The experts of a pretraining.

    Attributes:
        path: The run directory.
        windows: Since the domains last changed, at least one; they stay on disk.
        probe: The last, and after how many steps; None where there was none.
        logged: Changes of weights.
        thresholds: From where on something is diagnosed.
        options: What is asked.
    """

    path: Path
    windows: tuple[RecordedWindow, ...]
    probe: tuple[int, ProbeResult] | None
    logged: tuple[LoggedChange, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    options: ExpertOptions = field(default_factory=ExpertOptions)

    @classmethod
    def read(cls, path: Path, options: ExpertOptions | None = None) -> PretrainingExperts | None:
        """Read a run directory; None where nothing was recorded.

        Raises:
            RoutingError: A file cannot be read, or what is asked cannot be.
            RunError: The mixture log cannot be read.
        """
        asked = options or ExpertOptions()
        record = ExpertRecord(path / EXPERTS)
        logged = tuple(read_changes(path / MIXTURE_LOG))
        windows = record.recorded(tables=bool(logged))
        if not windows:
            return None
        last = nothing(windows[-1].domains, windows[-1].sizes)
        alike = [w for w in windows if w.domains == last.domains]
        for window in alike:
            last.check_sizes(last.domains, window.sizes, f"{path}: an earlier window")
        own = OwnExperts.read(path)
        limits = Thresholds().with_values(own.thresholds, f"{path}: experts.thresholds")
        limits = limits.with_values(asked.thresholds, "--threshold")
        highest = max(window.highest_load for window in alike)
        limits.check_reachable(highest, "--threshold" if asked.thresholds else str(path))
        if asked.ranks is None:
            asked = replace(asked, ranks=own.ranks)
        return cls(path, tuple(alike), record.last_probe(), logged, limits, asked)

    @cached_property
    def settled(self) -> tuple[RecordedWindow, ...]:
        """The windows of the steps that are asked for, or of the second half.

        Raises:
            RoutingError: No window has any of these steps.
        """
        end = self.windows[-1].end
        if self.options.steps is None:
            return tuple(window for window in self.windows if 2 * window.end > end)
        low, high = self.options.steps
        first, last = low or 1, end if high is None else high
        within = [w for w in self.windows if w.start + 1 >= first and w.end <= last]
        found = within or [w for w in self.windows if w.end >= first and w.start + 1 <= last]
        if not found:
            raise RoutingError(
                f"--steps {low or ''}:{'' if high is None else high}: counts are of the steps"
                f" {self.windows[0].start + 1} to {end}"
            )
        return tuple(found)

    @cached_property
    def train(self) -> Assignments:
        """What was assigned in them."""
        return reduce(add, (window.assignments for window in self.settled))

    @cached_property
    def summary(self) -> Summary:
        """What that says, with the diagnoses."""
        return Summary.of(self.train, self.thresholds, self._probe_of_these, self.options.ranks)

    @cached_property
    def changes(self) -> tuple[ExpertChange, ...]:
        """What the largest changes of weights did, or the one that is asked for.

        Raises:
            RoutingError: There is none at the step that is asked for.
        """
        return expert_changes(self.windows, self.logged, self.options.change)

    @property
    def compared(self) -> Assignments:
        """What domains are compared by: the last probe, or training where that saw too little."""
        probe = self._probe_of_these
        return self.train if probe is None or not probe.enough else probe.assignments()

    def figures(self) -> dict[str, Figure]:
        """Draw the figures, by name."""
        marked = [(float(one.step - 1), one.why) for one in self.logged]
        largest = max(self.changes, key=_size, default=None)
        return {
            **still_figures(self.train, self.compared),
            **moving_figures(self.windows, marked),
            **change_figures(largest),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return what is said as plain values."""
        step, probe = self.probe or (None, None)
        held_out = None
        if probe is not None:
            table = self._specialisation(probe)
            held_out = {"step": step, "specialisation": None if table is None else table.to_dicts()}
        return {
            "directory": str(self.path),
            "kind": "pretraining",
            "steps": [self.settled[0].start, self.settled[-1].end],
            **self.summary.as_dict(),
            "collapsed": self.summary.collapsed,
            "probe": held_out,
            "changes": [change_dict(change) for change in self.changes],
            "changes_of_weights": len(self.logged),
        }

    def __str__(self) -> str:
        """Return it as text of one screen."""
        first, last = self.settled[0].start + 1, self.settled[-1].end
        text = f"steps {first:,} to {last:,}: {self.summary}\n{self._of_held_out()}".rstrip()
        told = [change_text(change) for change in self.changes]
        more = len(self.logged) - len(told)
        if more and told:
            told.append(f"{more} other changes of weights are in the log; --change STEP shows one")
        return "\n\n".join([text, *told])

    @property
    def _probe_of_these(self) -> ProbeResult | None:
        """The last probe, if it is of the domains and experts of the windows."""
        if self.probe is None:
            return None
        found = self.probe[1].assignments()
        try:
            self.train.check_sizes(found.domains, found.sizes, "the probe")
        except RoutingError:
            return None
        return self.probe[1]

    def _specialisation(self, probe: ProbeResult) -> Any:
        return probe.specialisation(permutations=PERMUTATIONS) if probe.enough else None

    def _of_held_out(self) -> str:
        if self.probe is None:
            return ""
        step, probe = self.probe
        if len(probe.domains) == 1:  # nothing to tell apart
            return ""
        table = self._specialisation(probe)
        if table is None:
            tokens = int(probe.tokens_U.sum()) // len(probe.domains)
            return (
                f"held-out text, step {step:,}: {len(probe.domain_U):,} sequences, {tokens:,}"
                f" tokens of each domain; {ENOUGH_SEQUENCES:,} and {ENOUGH_TOKENS:,} are needed to"
                " tell specialisation from chance (experts.probe, and held-out text for it)"
            )
        by_layer = "  ".join(
            f"{layer}: {value:.3f}"
            for layer, value in table.select(key_column(), "specialisation").iter_rows()
        )
        chance = float((table["chance"] / table["information"]).mean())
        return (
            f"held-out text, step {step:,}: specialisation by layer, less chance"
            f" ({100 * chance:.0f}% of what is measured): {by_layer}"
        )


def _size(change: ExpertChange) -> float:
    return LoggedChange(0, "", change.weights_before, change.weights_after).distance
