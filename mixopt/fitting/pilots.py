"""Pilots: a few runs at the target size, which carry a fit from small proxies to that size.

They are runs as trials are, on the same domains and losses; their mixtures may be new. Losses are
carried by lines, and an objective, whichever is asked for, by these and a residual of its own
(mixopt.fitting.pilot_correction).
Intervals are of a new run at the pilots' size: the quantile of Student's t for so many runs, times
the deviation.

Shapes: K pilots, D domains, M losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.errors import RunError, TrialsError, did_you_mean
from mixopt.fitting.intervals import LEVEL, Calibration
from mixopt.fitting.pilot_correction import Correction, correct
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials, schema


@dataclass(frozen=True, eq=False)
class Pilots:
    """Runs at the target size, and how a fit is carried there."""

    trials: Trials
    correction: Correction
    typical_M: Array

    @property
    def slopes(self) -> dict[str, float]:
        """Slope of each loss's line: how much of a difference between proxies is left."""
        return dict(zip(self.trials.targets, self.correction.slopes_M.tolist(), strict=True))

    def describe(self) -> str:
        """Say in a line how many runs there are and what they changed."""
        slopes, count = list(self.slopes.values()), len(self.trials)
        return (
            f"is corrected to the size of {count} pilot{'s' * (count != 1)} by lines, "
            f"slopes {min(slopes):.2f} to {max(slopes):.2f}"
        )

    @cached_property
    def calibration(self) -> Calibration:
        """How a deviation becomes half of a 90% interval."""
        from scipy.stats import t

        return Calibration(float(t.ppf(0.5 + LEVEL / 2, self.correction.freedom)), 0.0, True)

    def to_json(self) -> dict[str, Any]:
        """Return all but the runs as plain values."""
        return {
            "runs": len(self.trials),
            "slopes": self.slopes,
            "typical": self.typical_M.tolist(),
            "correction": self.correction.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], trials: Trials) -> Pilots:
        """Build what `to_json` described."""
        correction = Correction.from_json(content["correction"])
        return cls(trials, correction, np.array(content["typical"]))


def read_pilots(path: Path, content: Mapping[str, Any]) -> Pilots:
    """Read pilots from the folder of a fit and what fit.json says of them."""
    try:
        found = Pilots.from_json(content, Trials.read(path / "pilots.parquet"))
        found.describe()
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunError(
            f"{path / 'fit.json'}: pilots: {type(error).__name__}: {error}; fit again"
        ) from error
    return found


def learn_pilots(
    pilots: Trials,
    predicted_KM: Array,
    objective: Objective,
    *,
    spread_M: Array,
    noise_M: Array,
    typical_M: Array,
) -> Pilots:
    """Learn how pilots differ from what a fit predicts for them."""
    observed_KM = pilots.losses(objective.unit)
    correction = correct(predicted_KM, observed_KM, pilots.weights(), spread_M, noise_M)
    return Pilots(pilots, correction, typical_M)


def aligned(pilots: Trials, trials: Trials, objective: Objective) -> Trials:
    """Return the finished pilots on the domains and losses of the trials, in their order."""
    _check_names(pilots, trials)
    if not pilots.has(objective.unit):
        raise TrialsError(f"pilots: their losses are not in {objective.unit}, as the fit's are")
    try:
        done = pilots.finished
    except TrialsError as error:
        raise TrialsError(f"pilots: {error}; a correction needs at least one") from error
    table = done.table.select(list(schema(trials.domains, trials.targets)))
    found = Trials(table, trials.domains, trials.targets, pilots.notes)
    _check_not_trials(found, trials, objective)
    return found


def _check_names(pilots: Trials, trials: Trials) -> None:
    for name in pilots.domains:
        if name not in trials.domains:
            near = did_you_mean(name, trials.domains)
            raise TrialsError(f"pilots: the trials have no domain {name!r}{near}")
    for what, own, theirs in (
        ("weight of domain", pilots.domains, trials.domains),
        ("loss on", pilots.targets, trials.targets),
    ):
        for name in theirs:
            if name not in own:
                raise TrialsError(
                    f"pilots: no {what} {name!r}{did_you_mean(name, own)}; pilots need what the"
                    " trials have"
                )


def _check_not_trials(pilots: Trials, trials: Trials, objective: Objective) -> None:
    """Check that pilots are of another size, as far as the tables tell."""
    columns = ("proxy", "parameters", "tokens")
    sizes = set(trials.table.select(columns).iter_rows())
    for name, *own in pilots.table.select("trial", *columns).iter_rows():
        if tuple(own) in sizes and None not in own[1:]:
            raise TrialsError(
                f"pilots: {name!r} is of the trials' own size ({own[1]} parameters, {own[2]}"
                " tokens); pilots are runs at the target size: fit it with the trials instead"
            )
    known = {numbers: name for name, numbers in _numbers(trials, objective)}
    for name, numbers in _numbers(pilots, objective):
        if numbers in known:
            raise TrialsError(
                f"pilots: {name!r} is trial {known[numbers]!r} (the same mixture and losses);"
                " pilots are runs at the target size"
            )


def _numbers(trials: Trials, objective: Objective) -> list[tuple[str, tuple[float, ...]]]:
    """Return name, and weights and losses together, of each trial."""
    both = np.hstack([trials.weights(), trials.losses(objective.unit)])
    names = trials.table["trial"].to_list()
    return [(name, tuple(row)) for name, row in zip(names, both.tolist(), strict=True)]
