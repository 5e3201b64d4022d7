"""Test a fit against runs that it has not seen.

Ranks say whether the fit orders mixtures rightly, beside what ranks them without a law and beside
the most that noise allows, where there are replicates. RMSE and coverage say whether its numbers
hold. Runs of a larger model have other losses for the same mixtures: ranks still hold then, and the
numbers do not, so they are left out.

A plain mean over targets ranks such runs worse than its parts, because losses spread differently at
each size; `mean_scaled` divides each loss by its standard deviation first: what is predicted by
that of the trials, what was observed by that of the test's own runs.

Shapes: N runs, M targets, K trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mixopt.errors import TrialsError
from mixopt.fitting.fitted import Fit
from mixopt.fitting.held_out import (
    BETTER,
    best_spearman,
    controls,
    replicate_spread,
    rmse,
    share_better,
    spearman,
)
from mixopt.fitting.intervals import conformal_quantile
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials import Trials

MIN_RUNS = 4
MUCH = 0.5  # a line that leaves less of the error than this speaks of another scale
CONTROLS = ("own_share", "from_uniform", "nearest_trial")


def evaluate(fit: Fit, unseen: Trials) -> dict[str, Any]:
    """Compare the predictions of a fit with the results of runs.

    Args:
        fit: The fit.
        unseen: Runs with losses in the fit's unit, on the fit's domains and some of its targets.

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
    test = _Test(fit, unseen.finished)
    targets = {name: test.score(m) for m, name in enumerate(test.targets)}
    mean = test.score_together()
    return {
        "regressor": fit.name,
        "runs": len(test.unseen),
        "unit": unit,
        "scale": "other" if test.other_scale else "same",
        "mean_spearman": _mean_of(targets, "spearman"),
        "mean_controls": {name: _mean_of(targets, name) for name in CONTROLS},
        "targets": targets,
        "mean": mean,
        "mean_scaled": test.score_scaled(),
        "notes": list(test.notes(mean["better_than_own_share"])),
    }


class _Test:
    """Predictions and observations of the same runs, over the targets that both sides have."""

    def __init__(self, fit: Fit, unseen: Trials) -> None:
        self.fit, self.unseen, own = fit, unseen, fit.objective
        self.targets = _shared_targets(fit, unseen)
        order = [unseen.domains.index(name) for name in fit.domains]
        ours = [fit.targets.index(name) for name in self.targets]
        self.weights_ND = unseen.weights()[:, order]
        self.seen_NM = unseen.with_targets(self.targets).losses(own.unit)
        self.known_KM, self.held_out_KM = (
            one[:, ours] for one in (fit.data.losses_NM, fit.held_out_losses())
        )
        self.trial_spread_M = fit.known_losses()[:, ours].std(axis=0)
        found = fit.predict(self.weights_ND)
        self.told_NM = found.losses_NM[:, ours]
        self.halves_NM = found.high_NM[:, ours] - self.told_NM
        self.other_scale = _is_other_scale(self.told_NM, self.seen_NM)
        higher = tuple(name for name in own.higher if name in self.targets)
        shares = dict.fromkeys(self.targets, 1.0 / len(self.targets))
        self.mean = Objective(self.targets, "mean", shares, own.unit, higher)
        first = len(self.known_KM)
        self.controls = {
            one.name: (one.ranks_NM[first:], one.ranks_N[first:])
            for one in controls(
                np.vstack([fit.data.weights_ND, self.weights_ND]),
                np.vstack([self.known_KM, self.seen_NM]),
                np.repeat([0, 1], [first, len(self.seen_NM)]),
                fit.domains,
                self.mean,
            )
            if one.name in CONTROLS and one.ranks_NM is not None and one.ranks_N is not None
        }

    def score(self, m: int) -> dict[str, Any]:
        """Score one target."""
        seen_N, told_N, sign = self.seen_NM[:, m], self.told_NM[:, m], self.mean.signs[m]
        by_control = {name: ranks_NM[:, m] for name, (ranks_NM, _) in self.controls.items()}
        return {
            **self._ranks(told_N, seen_N, by_control, self.known_KM[:, m]),
            **self._accuracy(seen_N - told_N, self.halves_NM[:, m]),
            **_pick(sign * told_N, sign * seen_N),
        }

    def score_together(self) -> dict[str, Any]:
        """Score the mean of the targets."""
        told_N, halves_N = self._together()
        seen_N, known_K = self.mean.value(self.seen_NM), self.mean.value(self.known_KM)
        own_N, better = self._by_control["own_share"], None
        if len(seen_N) >= MIN_RUNS:
            columns = told_N[:, None], own_N[:, None], seen_N[:, None]
            better = float(share_better(*columns, self.fit.data.seed)[0])
        return {
            **self._ranks(told_N, seen_N, self._by_control, known_K),
            **self._accuracy(seen_N - told_N, halves_N),
            **_pick(told_N, seen_N),
            "better_than_own_share": better,
        }

    def score_scaled(self) -> dict[str, Any] | None:
        """Score the mean of losses over their standard deviations; None where one is 0."""
        known_M, seen_M = self.trial_spread_M, self.seen_NM.std(axis=0)
        if min(known_M.min(), seen_M.min()) <= 0:
            return None
        told_N, seen_N, known_K = (
            self.mean.value(values / spread_M)
            for values, spread_M in (
                (self.told_NM, known_M),
                (self.seen_NM, seen_M),
                (self.known_KM, known_M),
            )
        )
        return {**self._ranks(told_N, seen_N, self._by_control, known_K), **_pick(told_N, seen_N)}

    def notes(self, better: float | None) -> Iterator[str]:
        """Say what a reader of the figures should know."""
        yield from self.unseen.notes
        absent = [name for name in self.fit.targets if name not in self.targets]
        if absent:
            yield f"these runs have no losses on {', '.join(absent)}"
        again = sum(mixture in set(self.fit.data.mixtures) for mixture in self.unseen.mixtures)
        if again:
            yield f"{again} of {len(self.unseen)} runs have a mixture that the fit has seen"
        if self.other_scale:
            yield (
                "these runs are on another scale than the trials (a linear correction removes "
                "most of the error): ranks are comparable, RMSE and coverage are not"
            )
        if better is not None and better < BETTER:
            yield (
                "the fit adds nothing: a domain's own share ranks the mean of these runs as well"
                f" (the fit is better in {better:.0%} of resamples)"
            )

    def _together(self) -> tuple[Array, Array]:
        """Return the mean of the targets, and half of the width of its intervals."""
        if self.fit.is_carried:
            whole = replace(self.mean, evaluation=self.fit.targets)
            found = self.fit.predict(self.weights_ND, whole)
            return found.objective_N, found.objective_high_N - found.objective_N
        errors_K = self.mean.value(self.known_KM) - self.mean.value(self.held_out_KM)
        half = conformal_quantile(np.abs(errors_K))
        return self.mean.value(self.told_NM), half * self.fit.reach.stretch(self.weights_ND)

    @property
    def _by_control(self) -> dict[str, Array]:
        return {name: ranks_N for name, (_, ranks_N) in self.controls.items()}

    def _ranks(
        self, told_N: Array, seen_N: Array, by_control: Mapping[str, Array], known_K: Array
    ) -> dict[str, Any]:
        """Return rank correlations: the fit's, the controls', and the most that noise allows."""
        # By these runs' replicates, else by the trials'.
        spread = replicate_spread(seen_N, self.unseen.mixtures)
        if spread is None and not self.other_scale and not self.fit.is_carried:
            spread = replicate_spread(known_K, self.fit.data.mixtures)
        seed = self.fit.data.seed
        return {
            "spearman": spearman(told_N, seen_N),
            **{name: spearman(ranks_N, seen_N) for name, ranks_N in by_control.items()},
            "ceiling": None if spread is None else best_spearman(seen_N, spread[0], seed),
        }

    def _accuracy(self, errors_N: Array, halves_N: Array) -> dict[str, Any]:
        if self.other_scale:
            return {"rmse": None, "coverage90": None}
        covered = float((np.abs(errors_N) <= halves_N).mean())
        return {"rmse": rmse(errors_N, np.zeros_like(errors_N)), "coverage90": covered}


def _shared_targets(fit: Fit, unseen: Trials) -> tuple[str, ...]:
    """Return the targets of both, in the fit's order."""
    odd = sorted(set(unseen.domains) ^ set(fit.domains))
    if odd:
        raise TrialsError(f"domain {odd[0]!r} is not in both the table and the fit")
    targets = tuple(name for name in fit.targets if name in unseen.targets)
    if not targets:
        raise TrialsError(f"the table has none of the fit's targets: {', '.join(fit.targets)}")
    return targets


def _is_other_scale(told_NM: Array, seen_NM: Array) -> bool:
    """Tell whether lines through the other runs remove most of the error of most targets."""
    if len(told_NM) < MIN_RUNS:
        return False
    apart_NM = told_NM - told_NM.mean(axis=0)
    squares_M = (apart_NM**2).sum(axis=0)
    squares_M = np.where(squares_M > 1e-12, squares_M, np.inf)
    slopes_M = (apart_NM * seen_NM).sum(axis=0) / squares_M
    left_NM = seen_NM - seen_NM.mean(axis=0) - slopes_M * apart_NM
    left_NM /= np.maximum(1.0 - 1.0 / len(told_NM) - apart_NM**2 / squares_M, 1e-9)
    plain_M, lined_M = (np.sqrt((one**2).mean(axis=0)) for one in (seen_NM - told_NM, left_NM))
    return bool((lined_M < MUCH * plain_M).mean() > 0.5)


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
