"""Test a fit against runs that it has not seen.

Ranks say whether the fit orders mixtures rightly, beside what ranks them without a law and beside
the most that noise allows, where there are replicates. RMSE and coverage say whether its numbers
hold.

Runs of a larger model have other losses for the same mixtures. Ranks still hold then, and the
numbers do not, so they are left out. With `affine` each target's predictions are mapped by a
straight line first, which is fitted on all other runs of the test for each run. A plain mean over
targets ranks such runs worse than its parts, because losses spread differently at each size;
`mean_scaled` divides each loss by its standard deviation first: what is predicted by that of the
trials, what was observed by that of the test's own runs.

Shapes: N runs, M targets, K trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixopt.errors import TrialsError
from mixopt.fitting.cross_validation import BETTER, rmse, share_better, spearman
from mixopt.fitting.fitted import Fit
from mixopt.fitting.held_out import best_spearman, controls, replicate_spread
from mixopt.fitting.intervals import conformal_quantile
from mixopt.fitting.prediction import Prediction
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
            raise TrialsError(f"affine needs {MIN_RUNS} runs, but there are {count}")
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
        `rank` (1 is the best) and `regret` (how much worse it is than the best); for `mean` also
        `better_than_own_share`, in which share of resampled runs it ranks better; and `notes`.

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
    test = _Test(fit, unseen.finished, affine)
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
        "mean": test.score_together(),
        "mean_scaled": test.score_scaled(),
        "notes": test.notes(),
    }


@dataclass(frozen=True, eq=False)
class _Test:
    """Predictions and observations of the same runs, over the targets that both sides have."""

    fit: Fit
    unseen: Trials
    affine: bool

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The targets of both, in the fit's order."""
        theirs, ours = self.unseen.domains, self.fit.domains
        if set(theirs) != set(ours):
            odd = sorted(set(theirs) ^ set(ours))[0]
            raise TrialsError(f"domain {odd!r} is not in both the table and the fit")
        targets = tuple(name for name in self.fit.targets if name in self.unseen.targets)
        if not targets:
            known = ", ".join(self.fit.targets)
            raise TrialsError(f"the table has none of the fit's targets: {known}")
        return targets

    @cached_property
    def other_scale(self) -> bool:
        """Whether the runs are on another scale than the trials."""
        return is_other_scale(self._ranked_NM, self._observed_NM, self._lines[0])

    def score(self, m: int) -> dict[str, Any]:
        """Score one target."""
        observed_N, ranked_N = self._observed_NM[:, m], self._ranked_NM[:, m]
        controls = {name: ranks_NM[:, m] for name, (ranks_NM, _) in self._controls.items()}
        sign, known_K = self._objective.signs[m], self._known_KM[:, m]
        ranks = self._ranks(ranked_N, observed_N, controls, known_K)
        errors_N = observed_N - self._mapped_NM[:, m]
        accuracy = self._accuracy(errors_N, self._halves_NM[:, m])
        return {**ranks, **accuracy, **_pick(sign * ranked_N, sign * observed_N)}

    def score_together(self) -> dict[str, Any]:
        """Score the mean of the targets."""
        predicted_N, halves_N = self._together
        value = self._objective.value
        observed_N, known_K = value(self._observed_NM), value(self._known_KM)
        ranks = self._ranks(predicted_N, observed_N, self._mean_controls, known_K)
        accuracy = self._accuracy(observed_N - predicted_N, halves_N)
        added = {"better_than_own_share": self._better}
        return {**ranks, **accuracy, **_pick(predicted_N, observed_N), **added}

    @cached_property
    def _better(self) -> float | None:
        """In which share of resampled runs the fit ranks the mean better than own share."""
        own_N = self._mean_controls.get("own_share")
        if own_N is None or len(own_N) < MIN_RUNS:
            return None
        seen_N = self._objective.value(self._observed_NM)
        ours_N1, own_N1, seen_N1 = (one[:, None] for one in (self._together[0], own_N, seen_N))
        return float(share_better(ours_N1, own_N1, seen_N1, self.fit.data.seed)[0])

    def score_scaled(self) -> dict[str, Any] | None:
        """Score the mean of losses over their standard deviations; None where one is 0."""
        known_M = self.fit.known_losses()[:, self._ours].std(axis=0)
        seen_M = self._observed_NM.std(axis=0)
        if min(known_M.min(), seen_M.min()) <= 0:
            return None
        value = self._objective.value
        predicted_N = value(self._ranked_NM / known_M)
        observed_N = value(self._observed_NM / seen_M)
        known_K = value(self._known_KM / known_M)
        ranks = self._ranks(predicted_N, observed_N, self._mean_controls, known_K)
        return {**ranks, **_pick(predicted_N, observed_N)}

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
            about = (
                "RMSE and coverage are after a linear correction fitted to the other runs"
                if self.affine
                else "ranks are comparable, RMSE and coverage are not; affine=True in Python"
                " corrects predictions first"
            )
            lines.append(
                "these runs are on another scale than the trials (a linear correction removes "
                f"most of the error): {about}"
            )
        if self._better is not None and self._better < BETTER:
            lines.append(
                "the fit adds nothing: a domain's own share ranks the mean of these runs as well"
                f" (the fit is better in {self._better:.0%} of resamples)"
            )
        return lines

    @cached_property
    def _objective(self) -> Objective:
        """The plain mean of the targets, lower being better."""
        own = self.fit.objective
        higher = tuple(name for name in own.higher if name in self.targets)
        shares = dict.fromkeys(self.targets, 1.0 / len(self.targets))
        return Objective(self.targets, "mean", shares, own.unit, higher)

    @property
    def _ours(self) -> list[int]:
        return [self.fit.targets.index(name) for name in self.targets]

    @property
    def _known_KM(self) -> Array:
        return self.fit.data.losses_NM[:, self._ours]

    @cached_property
    def _weights_ND(self) -> Array:
        order = [self.unseen.domains.index(name) for name in self.fit.domains]
        return self.unseen.weights()[:, order]

    @cached_property
    def _observed_NM(self) -> Array:
        theirs = [self.unseen.targets.index(name) for name in self.targets]
        return self.unseen.losses(self.fit.objective.unit)[:, theirs]

    @cached_property
    def _predicted(self) -> Prediction:
        return self.fit.predict(self._weights_ND)

    @property
    def _ranked_NM(self) -> Array:
        """The fit's predictions, by which runs are ranked on a target."""
        return self._predicted.losses_NM[:, self._ours]

    @cached_property
    def _lines(self) -> tuple[Array, Array]:
        return leave_one_out_lines(self._ranked_NM, self._observed_NM, affine=self.affine)

    @property
    def _mapped_NM(self) -> Array:
        """The predictions that numbers are compared with."""
        return self._lines[0] if self.affine else self._ranked_NM

    @property
    def _halves_NM(self) -> Array:
        """Half of the width of their intervals."""
        halves_NM = self._predicted.high_NM[:, self._ours] - self._ranked_NM
        return np.abs(self._lines[1]) * halves_NM if self.affine else halves_NM

    @cached_property
    def _together(self) -> tuple[Array, Array]:
        """The mean of the targets, and half of the width of its intervals, shape (N,) each."""
        value = self._objective.value
        if self.fit.is_carried and not self.affine:
            whole = replace(self._objective, evaluation=self.fit.targets)
            predicted = self.fit.predict(self._weights_ND, whole)
            return predicted.objective_N, predicted.objective_high_N - predicted.objective_N
        slopes_M = self._lines[1].mean(axis=0) if self.affine else np.ones(len(self.targets))
        held_out_KM = self.fit.held_out_losses()[:, self._ours]
        errors_K = value(self._known_KM * slopes_M) - value(held_out_KM * slopes_M)
        half = conformal_quantile(np.abs(errors_K))
        return value(self._mapped_NM), half * self.fit.reach.stretch(self._weights_ND)

    @cached_property
    def _controls(self) -> dict[str, tuple[Array, Array]]:
        """What controls rank the runs by, for each target and for the mean."""
        first = len(self._known_KM)
        found = controls(
            np.vstack([self.fit.data.weights_ND, self._weights_ND]),
            np.vstack([self._known_KM, self._observed_NM]),
            np.repeat([0, 1], [first, len(self._weights_ND)]),
            self.fit.domains,
            self._objective,
        )
        return {
            one.name: (one.ranks_NM[first:], one.ranks_N[first:])
            for one in found
            if one.name in CONTROLS and one.ranks_NM is not None and one.ranks_N is not None
        }

    @property
    def _mean_controls(self) -> dict[str, Array]:
        return {name: ranks_N for name, (_, ranks_N) in self._controls.items()}

    def _ranks(
        self, predicted_N: Array, observed_N: Array, controls: Mapping[str, Array], known_K: Array
    ) -> dict[str, Any]:
        """Return rank correlations: the fit's, the controls', and the most that noise allows."""
        # By these runs' replicates, else by the trials'.
        spread = replicate_spread(observed_N, self.unseen.mixtures)
        if spread is None and not self.other_scale and not self.fit.is_carried:
            spread = replicate_spread(known_K, self.fit.data.mixtures)
        seed = self.fit.data.seed
        return {
            "spearman": spearman(predicted_N, observed_N),
            **{name: spearman(ranks_N, observed_N) for name, ranks_N in controls.items()},
            "ceiling": None if spread is None else best_spearman(observed_N, spread[0], seed),
        }

    def _accuracy(self, errors_N: Array, halves_N: Array) -> dict[str, Any]:
        if self.other_scale and not self.affine:
            return {"rmse": None, "coverage90": None}
        covered = float((np.abs(errors_N) <= halves_N).mean())
        return {"rmse": rmse(errors_N, np.zeros_like(errors_N)), "coverage90": covered}


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
