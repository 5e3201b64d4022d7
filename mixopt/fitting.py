"""Fit regressors to trials, compare them on held-out mixtures, and keep the best.

Every regressor of the configuration predicts the same folds, in which a mixture and its
replicates are held out together. The one with the least root mean squared error of the objective
is fitted again on all finished trials; the others stay in the report, beside their controls.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from mixopt.config import FitConfig
from mixopt.controls import HeldOut, controls, held_out
from mixopt.crossval import Array, IntArray, grouped_folds, out_of_fold
from mixopt.errors import PluginError
from mixopt.fit_report import OBJECTIVE, report_table
from mixopt.fitted import Fit, Prediction, fit_again
from mixopt.objective import Objective
from mixopt.progress import Update, no_progress
from mixopt.regressor import fit_regressor, make_regressor
from mixopt.trial_checks import check_trials
from mixopt.trials import Trials

__all__ = ["Fit", "Prediction", "fit_trials"]


def fit_trials(
    trials: Trials,
    config: FitConfig,
    objective: Objective,
    seed: int,
    *,
    update: Update = no_progress,
) -> Fit:
    """Compare regressors on held-out folds and fit the best on all finished trials.

    Args:
        trials: The table; rows that did not finish are left out.
        config: Names of regressors, and folds.
        objective: What is minimised; its unit is the unit of the fit.
        seed: Of the folds, of the regressors, and of the ceiling's simulated noise.
        update: Receives how many fits on folds are done, and which regressor is at work.

    Raises:
        TrialsError: Too few mixtures, a loss that is the same in all trials, or evaluation
            domains that are not the objective's.
        PluginError: A regressor that cannot be found, fails, or predicts what is not finite.
    """
    done = trials.finished
    check_trials(done, objective, config.folds)
    weights_ND, losses_NM = done.weights(), done.losses(objective.unit)
    fold_N = grouped_folds(done.mixtures, config.folds, seed)
    steps = _Steps(update)
    contenders = [
        _compete(n, weights_ND, losses_NM, fold_N, objective, seed, steps) for n in _once(config)
    ]
    observed_N = objective.value(losses_NM)
    best = min(contenders, key=lambda one: float(((one.objective_N - observed_N) ** 2).mean()))
    predictors = contenders + controls(weights_ND, losses_NM, fold_N, done.domains, objective)
    return Fit(
        name=best.name,
        regressor=fit_again(best.name, done, objective, seed),
        objective=objective,
        trials=done,
        report=report_table(predictors, losses_NM, done.mixtures, objective, seed),
        held_out=_held_out_table(contenders, done, losses_NM, fold_N, objective),
        seed=seed,
        folds=config.folds,
    )


def _once(config: FitConfig) -> list[str]:
    return list(dict.fromkeys(config.regressors))


def _compete(
    name: str,
    weights_ND: Array,
    losses_NM: Array,
    fold_N: IntArray,
    objective: Objective,
    seed: int,
    steps: _Steps,
) -> HeldOut:
    make_regressor(name, seed)  # an unknown name is an error before anything is fitted
    predicted_NM = out_of_fold(lambda: _Named(name, seed, steps), weights_ND, losses_NM, fold_N)
    if not np.isfinite(predicted_NM).all():
        raise PluginError(
            f"regressor {name!r} predicts values that are not finite; leave it out of"
            " fit.regressors"
        )
    return held_out(name, predicted_NM, objective)


class _Steps:
    """Counts the fits on folds."""

    def __init__(self, update: Update) -> None:
        self._update, self._done = update, 0

    def ended(self, name: str) -> None:
        self._done += 1
        self._update(self._done, name)


class _Named:
    """A regressor that says its name when it fails, and when it is fitted."""

    def __init__(self, name: str, seed: int, steps: _Steps) -> None:
        self._name, self._regressor, self._steps = name, make_regressor(name, seed), steps

    def fit(self, weights_ND: Array, losses_NM: Array) -> Any:
        fitted = fit_regressor(self._name, self._regressor, weights_ND, losses_NM)
        self._steps.ended(self._name)
        return fitted


def _held_out_table(
    contenders: Sequence[HeldOut],
    trials: Trials,
    losses_NM: Array,
    fold_N: IntArray,
    objective: Objective,
) -> pl.DataFrame:
    observed = {
        OBJECTIVE: objective.value(losses_NM),
        **dict(zip(trials.targets, losses_NM.T, strict=True)),
    }
    frames = []
    for one in contenders:
        predicted = {
            OBJECTIVE: one.objective_N,
            **dict(zip(trials.targets, one.losses_NM.T, strict=True)),
        }
        frames += [
            pl.DataFrame(
                {
                    "trial": trials.table["trial"],
                    "fold": fold_N,
                    "observed": observed[t],
                    "predicted": predicted[t],
                }
            ).select(pl.lit(one.name).alias("predictor"), pl.lit(t).alias("target"), pl.all())
            for t in predicted
        ]
    return pl.concat(frames)
