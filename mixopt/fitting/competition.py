"""Fit regressors to trials, compare them on held-out mixtures, and keep the best.

Every regressor of the configuration predicts the same folds, in which a mixture and its
replicates are held out together. The one with the least root mean squared error of the objective
is fitted again on all finished trials; the others stay in the report, beside their controls.

Trials of several sizes are predicted each at its own size; they are ranked within a size, and the
controls know the mean of each, so that a size's level counts for nobody.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from mixopt.config import FitConfig
from mixopt.errors import PluginError
from mixopt.fitting.capabilities import (
    Predictor,
    SupportsCrossFit,
    supports_cross_fit,
    supports_members,
    supports_sizes,
    supports_watching,
)
from mixopt.fitting.cross_validation import out_of_fold
from mixopt.fitting.fit_data import FitData
from mixopt.fitting.fit_report import report_table
from mixopt.fitting.fitted import Fit
from mixopt.fitting.held_out_predictions import HeldOutPredictions, held_out, held_out_table
from mixopt.fitting.interval_growth import growth_beyond
from mixopt.fitting.model_sizes import ModelSize, check_finished, size_of_fit
from mixopt.fitting.regressor import cross_fit_regressor, fit_regressor
from mixopt.fitting.repetition import Repetition
from mixopt.fitting.trivial_controls import controls
from mixopt.objective import Objective
from mixopt.system import Array, Update, no_progress, one_blas_thread
from mixopt.trials import Trials


def fit_trials(
    trials: Trials,
    config: FitConfig,
    objective: Objective,
    seed: int,
    *,
    size: ModelSize | None = None,
    repetition: Repetition | None = None,
    update: Update = no_progress,
) -> Fit:
    """Compare regressors on held-out folds and fit the best on all finished trials.

    Args:
        trials: The table; rows that did not finish are left out.
        config: Names of regressors, and folds.
        objective: What is minimised; its unit is the unit of the fit.
        seed: Of the folds, of the regressors, and of the ceiling's simulated noise.
        size: What a regressor of mixture and size predicts at; the trials' own, where they are
            of one, when None.
        repetition: For regressors that know of epochs.
        update: Receives how many fits on folds are done, and which regressor is at work.

    Raises:
        TrialsError: Too few mixtures, a loss that is the same in all trials, evaluation domains
            that are not the objective's, or a size that is missing.
        PluginError: A regressor that cannot be found, fails, or predicts what is not finite.
    """
    data = FitData.of(trials, objective, folds=config.folds, seed=seed, repetition=repetition)
    names = list(dict.fromkeys(config.regressors))
    # An unknown name and a missing size are errors before anything is fitted.
    at = size_of_fit(data.sizes, {name: data.make(name) for name in names}, size)
    if at is not None:
        check_finished(data.trials)
    with one_blas_thread(len(data.losses_NM)):
        return _fitted(data, names, at, update)


def _fitted(data: FitData, names: Sequence[str], at: ModelSize | None, update: Update) -> Fit:
    """Return the best of some regressors, fitted on all rows."""
    steps = _Steps(update)
    contenders = [_compete(name, data, steps) for name in names]
    best = min(contenders, key=lambda one: one.squared_error(data))
    shown = [one.held_out for one in contenders]
    fit = Fit(
        name=best.held_out.name,
        fitted=data.fitted(best.held_out.name) if best.fitted is None else best.fitted,
        objective=data.objective,
        trials=data.trials,
        report=report_table([*shown, *_members(contenders, data), *_controls(data)], data),
        held_out=held_out_table(shown, data),
        seed=data.seed,
        folds=data.folds,
        size=at if best.uses_sizes else None,
        repetition=data.repetition,
    )
    return fit if fit.size is None else replace(fit, growth=growth_beyond(fit))


@dataclass(frozen=True, eq=False)
class _Contender:
    """A regressor's held-out predictions, and itself fitted on all rows where it did that."""

    held_out: HeldOutPredictions
    fitted: Predictor | None
    uses_sizes: bool

    def squared_error(self, data: FitData) -> float:
        """Return the mean squared error of the objective on held-out folds."""
        return float(((self.held_out.objective_N - data.observed_N) ** 2).mean())


def _compete(name: str, data: FitData, steps: _Steps) -> _Contender:
    made = data.make(name)
    rows, fitted = data.rows(name, made), None
    if supports_cross_fit(made):
        fitted = made
        means_NM, stds_NM = _cross_fitted(name, made, rows, data, steps)
    else:
        means_NM, stds_NM = out_of_fold(
            lambda: _Named(name, data, steps), rows, data.losses_NM, data.fold_N
        )
    if not np.isfinite(means_NM).all():
        raise PluginError(
            f"regressor {name!r} predicts values that are not finite; leave it out of"
            " fit.regressors"
        )
    found = held_out(name, means_NM, data.objective, stds_NM=stds_NM)
    return _Contender(found, fitted, supports_sizes(made))


def _cross_fitted(
    name: str, made: SupportsCrossFit, rows: Array, data: FitData, steps: _Steps
) -> tuple[Array, Array]:
    folds = len(np.unique(data.fold_N))
    if supports_watching(made):
        made.watch(lambda share, part: steps.at(folds * share, f"{name}: {part}"))
    answer = cross_fit_regressor(name, made, rows, data.losses_NM, data.fold_N)
    steps.ended(name, folds)
    return answer


def _members(contenders: Sequence[_Contender], data: FitData) -> list[HeldOutPredictions]:
    """Return the held-out predictions of combined regressors' members, for the report."""
    found: dict[str, HeldOutPredictions] = {}
    for one in contenders:
        if one.fitted is not None and supports_members(one.fitted):
            for name, means_NM in one.fitted.held_out_members.items():
                found.setdefault(name, held_out(name, means_NM, data.objective, "member"))
    names = {one.held_out.name for one in contenders}
    return [one for name, one in found.items() if name not in names]


def _controls(data: FitData) -> list[HeldOutPredictions]:
    """Return the controls; of several sizes, for losses less the mean of their size."""
    losses_NM, group_N, objective = data.losses_NM, data.sizes.group_N, data.objective
    means_SM = np.stack([losses_NM[group_N == group].mean(axis=0) for group in np.unique(group_N)])
    level_NM = means_SM[group_N] - means_SM.mean(axis=0)
    domains = data.trials.domains
    found = controls(data.weights_ND, losses_NM - level_NM, data.fold_N, domains, objective)
    if len(means_SM) == 1:
        return found
    return [
        replace(
            one,
            losses_NM=one.losses_NM + level_NM,
            objective_N=objective.value(one.losses_NM + level_NM),
        )
        for one in found
    ]


class _Steps:
    """Counts the fits on folds."""

    def __init__(self, update: Update) -> None:
        self._update, self._done = update, 0

    def at(self, fits: float, note: str) -> None:
        self._update(self._done + fits, note)

    def ended(self, name: str, fits: int = 1) -> None:
        self._done += fits
        self._update(self._done, name)


class _Named:
    """A regressor that says its name when it fails, and when it is fitted."""

    def __init__(self, name: str, data: FitData, steps: _Steps) -> None:
        self._name, self._regressor, self._steps = name, data.make(name), steps

    def fit(self, weights_ND: ArrayLike, losses_NM: ArrayLike) -> Predictor:
        fitted = fit_regressor(self._name, self._regressor, weights_ND, losses_NM)
        self._steps.ended(self._name)
        return fitted
