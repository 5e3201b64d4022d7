"""Test a fit against runs that it has not seen.

Ranks say whether the fit orders mixtures rightly, beside what ranks them without a law (the
domain's own share, the distance from uniform, the nearest trial; mixopt.fitting.held_out)
and beside the most that noise allows, where there are replicates. RMSE and coverage say whether its
numbers hold.

Runs of a larger model have other losses for the same mixtures. Ranks still hold then, and the
numbers do not, so they are left out. With `affine` each target's predictions are mapped by a
straight line first, which is fitted on all other runs of the test for each run: the figures say
how well the fit knows the shape, for someone who has a few runs of that size. A plain mean over
targets ranks such runs worse than its parts, because losses spread differently at each size;
`mean_scaled` divides each loss by its standard deviation first: what is predicted by that of the
trials, what was observed by that of the test's own runs.

Shapes: N runs, M targets, K trials.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixopt.errors import TrialsError
from mixopt.fitting.cross_validation import rmse, spearman
from mixopt.fitting.fitted import Fit
from mixopt.fitting.held_out import best_spearman, controls, replicate_spread
from mixopt.fitting.intervals import conformal_quantile
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials

MIN_RUNS = 4
MUCH = 0.5  # a line that leaves less of the error than this speaks of another scale


def leave_one_out_lines(
    predicted_NM: Array, observed_NM: Array, *, affine: bool
) -> tuple[Array, Array]:
    """Map each run's predictions by the line through the other runs."""
    count = len(predicted_NM)
    if count < MIN_RUNS:
        if affine:
            raise TrialsError(f"--affine needs {MIN_RUNS} runs, but there are {count}")
        return predicted_NM, np.ones_like(predicted_NM)
    centre_M = predicted_NM.mean(axis=0)
    x_NM = predicted_NM - centre_M

    def others(values_NM: Array) -> Array:
        mean: Array = (values_NM.sum(axis=0) - values_NM) / (count - 1)
        return mean

    x_mean_NM, y_mean_NM = others(x_NM), others(observed_NM)
    variance_NM = others(x_NM**2) - x_mean_NM**2
    covariance_NM = others(x_NM * observed_NM) - x_mean_NM * y_mean_NM
    flat_NM = variance_NM <= 1e-12
    slopes_NM = np.where(flat_NM, 0.0, covariance_NM / np.where(flat_NM, 1.0, variance_NM))
    return y_mean_NM + slopes_NM * (x_NM - x_mean_NM), slopes_NM


def is_other_scale(predicted_NM: Array, observed_NM: Array, lined_NM: Array) -> bool:
    """Tell whether a linear correction removes most of the error of most targets."""
    plain_M = np.sqrt(((observed_NM - predicted_NM) ** 2).mean(axis=0))
    lined_M = np.sqrt(((observed_NM - lined_NM) ** 2).mean(axis=0))
    return bool((lined_M < MUCH * plain_M).mean() > 0.5)


CONTROLS = ("own_share", "from_uniform", "nearest_trial")


def evaluate(fit: Fit, unseen: Trials, *, affine: bool = False) -> dict[str, Any]:
    """Compare the predictions of a fit with the results of runs.

    Args:
        fit: The fit.
        unseen: Runs with losses in the fit's unit, on the fit's domains and some of its targets.
        affine: Map predictions to the scale of the runs, each by the other runs.

    Returns:
        `mean_spearman`, and `mean_controls` likewise; `scale`, `same` or `other`; by target, and
        for `mean` and `mean_scaled`: `spearman`, its controls and `ceiling`, `rmse`, `coverage90`
        (share of the runs within the 90% interval), and of the run that the fit would pick its
        `rank` (1 is the best) and `regret` (how much worse it is than the best); and `notes`.

    Raises:
        TrialsError: Other domains than the fit's, none of its targets, another unit, or too few
            runs.
    """
    if not isinstance(unseen, Trials):
        raise TrialsError(
            f"evaluate: expected Trials, such as Trials.from_csv(mixtures, losses); got {unseen!r}"
        )
    unit = fit.objective.unit
    if not unseen.has(unit):
        raise TrialsError(
            f"the fit is in {unit}, but these losses are not; give their unit: mixopt import --unit"
            " (in Python: Trials.from_csv(..., unit=)), or fit again in their unit"
        )
    test = _Test.of(fit, unseen.finished, affine=affine)
    targets = {name: test.score(m) for m, name in enumerate(test.targets)}
    return {
        "regressor": fit.name,
        "runs": len(unseen.finished),
        "unit": fit.objective.unit,
        "scale": "other" if test.other_scale else "same",
        "affine": affine,
        "mean_spearman": _mean_of(targets, "spearman"),
        "mean_controls": {name: _mean_of(targets, name) for name in CONTROLS},
        "targets": targets,
        "mean": test.score_together(test.objective),
        "mean_scaled": test.score_scaled(),
        "notes": test.notes(),
    }


@dataclass(frozen=True, eq=False)
class _Test:
    """Predictions and observations of the same runs, over the targets that both sides have.

    `ranked_NM` are the fit's predictions, by which runs are ranked on a target; `mapped_NM` and
    `halves_NM` are those that numbers are compared with, and half of the width of their
    intervals.
    """

    fit: Fit
    unseen: Trials
    weights_ND: Array
    targets: tuple[str, ...]
    observed_NM: Array
    ranked_NM: Array
    mapped_NM: Array
    halves_NM: Array
    slopes_M: Array
    controls: dict[str, tuple[Array, Array]]
    other_scale: bool
    affine: bool

    @classmethod
    def of(cls, fit: Fit, unseen: Trials, *, affine: bool) -> _Test:
        """Predict, and bring the predictions to the runs' scale where that is asked for."""
        targets = _shared(fit, unseen)
        ours = [fit.targets.index(name) for name in targets]
        weights_ND = unseen.weights()[:, [unseen.domains.index(name) for name in fit.domains]]
        predicted = fit.predict(weights_ND)
        ranked_NM = predicted.losses_NM[:, ours]
        halves_NM = predicted.high_NM[:, ours] - ranked_NM
        theirs = [unseen.targets.index(name) for name in targets]
        observed_NM = unseen.losses(fit.objective.unit)[:, theirs]
        lined_NM, slopes_NM = leave_one_out_lines(ranked_NM, observed_NM, affine=affine)
        return cls(
            fit,
            unseen,
            weights_ND,
            targets,
            observed_NM,
            ranked_NM,
            lined_NM if affine else ranked_NM,
            np.abs(slopes_NM) * halves_NM if affine else halves_NM,
            slopes_NM.mean(axis=0) if affine else np.ones(len(targets)),
            _controls(fit, weights_ND, observed_NM, _mean_objective(fit, targets)),
            is_other_scale(ranked_NM, observed_NM, lined_NM),
            affine,
        )

    @property
    def comparable(self) -> bool:
        """Whether numbers can be compared, not ranks alone."""
        return self.affine or not self.other_scale

    def score(self, m: int) -> dict[str, Any]:
        """Score one target."""
        sign = self.objective.signs[m]
        observed_N, errors_N = self.observed_NM[:, m], self.observed_NM[:, m] - self.mapped_NM[:, m]
        ranks = {name: ranks_NM[:, m] for name, (ranks_NM, _) in self.controls.items()}
        known_K = self._known[:, m]
        return {
            "spearman": spearman(self.ranked_NM[:, m], observed_N),
            **{name: spearman(ranks_N, observed_N) for name, ranks_N in ranks.items()},
            "ceiling": self._ceiling(observed_N, known_K),
            **self._accuracy(errors_N, self.halves_NM[:, m]),
            **_pick(sign * self.ranked_NM[:, m], sign * observed_N),
        }

    def score_together(self, objective: Objective) -> dict[str, Any]:
        """Score an objective of several targets."""
        value = objective.value
        observed_N, predicted_N = value(self.observed_NM), self._together[0]
        return {
            **self._ranks(predicted_N, observed_N, value(self._known)),
            **self._accuracy(observed_N - predicted_N, self._together[1]),
            **_pick(predicted_N, observed_N),
        }

    def score_scaled(self) -> dict[str, Any] | None:
        """Score the mean of losses over their standard deviations; None where one is 0."""
        known_M, seen_M = (
            self.fit.known_losses()[:, self._ours].std(axis=0),
            self.observed_NM.std(axis=0),
        )
        if min(known_M.min(), seen_M.min()) <= 0:
            return None
        value = self.objective.value
        predicted_N = value(self.ranked_NM / known_M)
        observed_N = value(self.observed_NM / seen_M)
        known_K = value(self._known / known_M)
        return {
            **self._ranks(predicted_N, observed_N, known_K),
            **_pick(predicted_N, observed_N),
        }

    def notes(self) -> list[str]:
        """Say what a reader of the figures should know."""
        fitted = set(self.fit.data.mixtures)
        again = sum(mixture in fitted for mixture in self.unseen.mixtures)
        absent = [name for name in self.fit.targets if name not in self.targets]
        lines = list(self.unseen.notes)
        if absent:
            lines.append(f"these runs have no losses on {', '.join(absent)}")
        if again:
            lines.append(f"{again} of {len(self.unseen)} runs have a mixture that the fit has seen")
        if self.other_scale:
            lines.append(self._about_scale())
        return lines

    @property
    def objective(self) -> Objective:
        """The plain mean of the targets, lower being better."""
        return _mean_objective(self.fit, self.targets)

    @property
    def _ours(self) -> list[int]:
        return [self.fit.targets.index(name) for name in self.targets]

    @property
    def _known(self) -> Array:
        return self.fit.data.losses_NM[:, self._ours]

    @cached_property
    def _together(self) -> tuple[Array, Array]:
        """The mean of the targets, and half of the width of its intervals, shape (N,) each."""
        value, slopes_M = self.objective.value, self.slopes_M
        if self.fit.is_carried and not self.affine:
            whole = replace(self.objective, evaluation=self.fit.targets)
            predicted = self.fit.predict(self.weights_ND, whole)
            return predicted.objective_N, predicted.objective_high_N - predicted.objective_N
        held_out_KM = self.fit.held_out_losses()[:, self._ours]
        errors_K = value(self._known * slopes_M) - value(held_out_KM * slopes_M)
        half = conformal_quantile(np.abs(errors_K))
        return value(self.mapped_NM), half * self.fit.reach.stretch(self.weights_ND)

    def _about_scale(self) -> str:
        said = (
            "these runs are on another scale than the trials (a linear correction removes "
            "most of the error)"
        )
        if self.affine:
            return (
                f"{said}: RMSE and coverage are after a linear correction fitted to the other runs"
            )
        return (
            f"{said}: ranks are comparable, RMSE and coverage are not; --affine corrects "
            "predictions first"
        )

    def _ranks(self, predicted_N: Array, observed_N: Array, known_K: Array) -> dict[str, Any]:
        return {
            "spearman": spearman(predicted_N, observed_N),
            **{name: spearman(one[1], observed_N) for name, one in self.controls.items()},
            "ceiling": self._ceiling(observed_N, known_K),
        }

    def _ceiling(self, observed_N: Array, known_K: Array) -> float | None:
        """Return the most that noise allows: by these runs' replicates, else by the trials'."""
        spread = replicate_spread(observed_N, self.unseen.mixtures)
        if spread is None and not self.other_scale and not self.fit.is_carried:
            spread = replicate_spread(known_K, self.fit.data.mixtures)
        return None if spread is None else best_spearman(observed_N, spread[0], self.fit.seed)

    def _accuracy(self, errors_N: Array, halves_N: Array) -> dict[str, Any]:
        if not self.comparable:
            return {"rmse": None, "coverage90": None}
        covered = float((np.abs(errors_N) <= halves_N).mean())
        return {"rmse": rmse(errors_N, np.zeros_like(errors_N)), "coverage90": covered}


def _shared(fit: Fit, unseen: Trials) -> tuple[str, ...]:
    """Return the targets of both, in the fit's order."""
    if set(unseen.domains) != set(fit.domains):
        odd = sorted(set(unseen.domains) ^ set(fit.domains))[0]
        raise TrialsError(f"domain {odd!r} is not in both the table and the fit")
    targets = tuple(name for name in fit.targets if name in unseen.targets)
    if not targets:
        raise TrialsError(f"the table has none of the fit's targets: {', '.join(fit.targets)}")
    return targets


def _mean_objective(fit: Fit, targets: tuple[str, ...]) -> Objective:
    higher = tuple(name for name in fit.objective.higher if name in targets)
    shares = dict.fromkeys(targets, 1.0 / len(targets))
    return Objective(targets, "mean", shares, fit.objective.unit, higher)


def _controls(
    fit: Fit, weights_ND: Array, observed_NM: Array, objective: Objective
) -> dict[str, tuple[Array, Array]]:
    """Return what controls rank the runs by, for each target and for the mean."""
    ours = [fit.targets.index(name) for name in objective.evaluation]
    known_KM = fit.data.losses_NM[:, ours]
    fold = np.repeat([0, 1], [len(known_KM), len(weights_ND)])
    found = controls(
        np.vstack([fit.data.weights_ND, weights_ND]),
        np.vstack([known_KM, observed_NM]),
        fold,
        fit.domains,
        objective,
    )
    first = len(known_KM)
    return {
        one.name: (one.ranks_NM[first:], one.ranks_N[first:])
        for one in found
        if one.name in CONTROLS and one.ranks_NM is not None and one.ranks_N is not None
    }


def _pick(predicted_N: Array, observed_N: Array) -> dict[str, Any]:
    """Return the rank of the run that is predicted lowest, and what it costs over the best."""
    pick = int(np.argmin(predicted_N))
    return {
        "rank": 1 + int((observed_N < observed_N[pick]).sum()),
        "regret": float(observed_N[pick] - observed_N.min()),
    }


def _mean_of(rows: dict[str, dict[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows.values() if row[column] is not None]
    return float(np.mean(values)) if values else None
