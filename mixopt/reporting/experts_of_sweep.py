"""What a sweep's trials say about their experts.

One trial is shown in full: that of the proposal where it was validated, else the best one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import MixoptError, RoutingError
from mixopt.proposals import PROPOSAL, mixture_of
from mixopt.reporting.expert_figures import still_figures
from mixopt.reporting.expert_options import ExpertOptions, OwnExperts
from mixopt.routing import ExpertCounts, Summary, Thresholds
from mixopt.run_directory import SWEEP, VALIDATE, load_run
from mixopt.trials import TrialExperts, best_trial, read_entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12  # trials that are listed


@dataclass(frozen=True, eq=False)
class SweepExperts:
    """The experts of a sweep.

    Attributes:
        path: The run directory.
        trials: The table of the sweep's trials.
        shown: The trial that is shown in full.
        counts: Of that trial.
        options: What is asked of that trial.
        thresholds: Of the run, from where on something is diagnosed.
    """

    path: Path
    trials: TrialExperts
    shown: str
    counts: ExpertCounts
    options: ExpertOptions = field(default_factory=ExpertOptions)
    thresholds: Thresholds = field(default_factory=Thresholds)

    @classmethod
    def read(
        cls, path: Path, options: ExpertOptions | None = None, *, trust: bool = False
    ) -> SweepExperts | None:
        """Read a run directory; None where no trial has experts.

        Raises:
            RunError: A file cannot be read.
            RoutingError: Steps of a trial are asked for, whose counts are of its second half alone.
        """
        asked = options or ExpertOptions()
        found = [read_entry(file)[1] for file in sorted(SWEEP.trial_files(path))]
        given = OwnExperts.read(path).thresholds
        limits = Thresholds().with_values(given, f"{path}: experts.thresholds")
        trials = TrialExperts.of(found, limits)
        if trials is None:
            return None
        if asked.steps is not None or asked.change is not None:
            raise RoutingError(
                f"{path}: --steps and --change are of a pretraining; of a sweep's trials the second"
                " half alone is counted"
            )
        counts = {one.trial: one.experts for one in found if one.experts is not None}
        for file in sorted(VALIDATE.trial_files(path)):
            if mixture_of(file.stem) == PROPOSAL:
                result = read_entry(file)[1]
                if result.experts is not None:
                    return cls(path, trials, result.trial, result.experts, asked, limits)
        best = _best(path, trust=trust)
        shown = best if best in counts else next(iter(counts))
        return cls(path, trials, shown, counts[shown], asked, limits)

    @cached_property
    def summary(self) -> Summary:
        """What the experts of the trial that is shown say, with the diagnoses."""
        asked = self.options.thresholds
        limits = self.thresholds.with_values(asked, "--threshold")
        if asked:
            limits.check_reachable(self.counts.train.highest_load, "--threshold")
        return Summary.of(self.counts.train, limits, ranks=self.options.ranks)

    def figures(self) -> dict[str, Figure]:
        """Draw the figures of the trial that is shown, by name."""
        return still_figures(self.counts.train, self.counts.held_out)

    def as_dict(self) -> dict[str, Any]:
        """Return what is said as plain values."""
        return {
            "directory": str(self.path),
            "kind": "sweep",
            "trials": self.trials.by_trial().to_dicts(),
            "collapsed": list(self.trials.collapsed),
            "shown": self.shown,
            **self.summary.as_dict(),
            "specialisation": {one.key: one.specialisation for one in self.counts.information},
        }

    def __str__(self) -> str:
        """Return it as text: the trials, then the one that is shown."""
        shown = f"trial {self.shown}: {self.summary}"
        return "\n".join([*self._trial_lines(), "", shown, *self._of_held_out()])

    def _of_held_out(self) -> list[str]:
        told = {one.key: one.specialisation for one in self.counts.information}
        by_layer = [f"{n}: {value:.3f}" for n, value in told.items() if value is not None]
        if not by_layer:
            return []
        return [f"held-out text: specialisation by layer, less chance: {'  '.join(by_layer)}"]

    def _trial_lines(self) -> list[str]:
        by_trial = self.trials.by_trial()
        table = by_trial.sort("has_collapsed", "load_entropy", descending=[True, False])
        marked = len(self.trials.collapsed)
        lines = [
            f"experts collapsed in {marked} of {table.height} trials",
            f"{'trial':<18}{'load entropy':>14}{'busiest':>10}{'dead':>6}{'specialisation':>16}",
        ]
        for row in table.head(SHOWN).iter_rows(named=True):
            told = row["specialisation"]
            lines.append(
                f"{row['trial'][:17]:<18}{row['load_entropy']:>14.3f}{row['max_violation']:>10.2f}"
                f"{row['dead']:>6}{'' if told is None else format(told, '.3f'):>16}"
                f"{_how(row['collapse'])}"
            )
        if table.height > SHOWN:
            lines.append(f"and {table.height - SHOWN} more, in experts.parquet")
        return lines


def _how(collapse: str | None) -> str:
    """Say in which layer the experts of a trial collapsed, and how, if they did."""
    return "" if collapse is None else f"  {collapse.partition(';')[0]}"


def _best(path: Path, *, trust: bool) -> str | None:
    """Return the trial with the lowest objective; None before the sweep is finished."""
    try:
        run = load_run(path, trust=trust)
        return best_trial(run.trials, run.objective)[0]
    except MixoptError:
        return None
