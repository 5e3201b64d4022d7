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
from typing import Any

import numpy as np
import polars as pl

from mixopt.config import FitConfig
from mixopt.errors import PluginError
from mixopt.fitting.cross_validation import grouped_folds, out_of_fold
from mixopt.fitting.fit_report import OBJECTIVE, report_table
from mixopt.fitting.fitted import Fit, fit_again
from mixopt.fitting.model_sizes import Size, regressor_rows, size_groups, size_of_fit, uses_scale
from mixopt.fitting.prediction import Prediction
from mixopt.fitting.regressor import cross_fit_regressor, fit_regressor, make_regressor
from mixopt.fitting.repetition import Repetition
from mixopt.fitting.trivial_controls import HeldOut, controls, held_out
from mixopt.objective import Objective
from mixopt.system import Array, IntArray, Update, no_progress
from mixopt.trials import Trials, check_trials, settled

__all__ = ["Fit", "Prediction", "fit_trials"]


def fit_trials(
    trials: Trials,
    config: FitConfig,
    objective: Objective,
    seed: int,
    *,
    size: Size | None = None,
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
    done = trials.finished
    check_trials(done, objective, config.folds)
    objective = settled(objective, done)
    losses_NM = done.losses(objective.unit)
    fold_N = grouped_folds(done.mixtures, config.folds, seed)
    # An unknown name and a missing size are errors before anything is fitted.
    makings = [_Making(name, seed, repetition) for name in _once(config)]
    at = size_of_fit(done, {one.name: one.made() for one in makings}, size)
    steps = _Steps(update)
    entries = [_compete(one, done, fold_N, objective, steps) for one in makings]
    contenders = [entry.held_out for entry in entries]
    observed_N = objective.value(losses_NM)
    best = min(contenders, key=lambda one: float(((one.objective_N - observed_N) ** 2).mean()))
    entry = next(entry for entry in entries if entry.held_out is best)
    predictors = [
        *contenders,
        *_members(entries, contenders, objective),
        *_controls(done, losses_NM, fold_N, objective),
    ]
    return Fit(
        name=best.name,
        fitted=entry.fitted or fit_again(best.name, done, objective, seed, repetition),
        objective=objective,
        trials=done,
        report=report_table(
            predictors, losses_NM, done.mixtures, objective, seed, sizes=size_groups(done)
        ),
        held_out=_held_out_table(contenders, done, losses_NM, fold_N, objective),
        seed=seed,
        folds=config.folds,
        size=at if entry.uses_scale else None,
        repetition=repetition,
    )


def _once(config: FitConfig) -> list[str]:
    return list(dict.fromkeys(config.regressors))


@dataclass(frozen=True)
class _Entry:
    """A contender: its held-out predictions, and itself fitted on all rows where it did that."""

    held_out: HeldOut
    fitted: Any
    uses_scale: bool


@dataclass(frozen=True)
class _Making:
    """What a regressor is made from."""

    name: str
    seed: int
    repetition: Repetition | None

    def made(self) -> Any:
        return make_regressor(self.name, self.seed, self.repetition)


def _compete(
    making: _Making, trials: Trials, fold_N: IntArray, objective: Objective, steps: _Steps
) -> _Entry:
    name, made = making.name, making.made()
    rows, losses_NM = regressor_rows(name, made, trials), trials.losses(objective.unit)
    if hasattr(made, "cross_fit"):
        means_NM, stds_NM = cross_fit_regressor(name, made, rows, losses_NM, fold_N)
        steps.ended(name, len(np.unique(fold_N)))
    else:
        means_NM, stds_NM = out_of_fold(lambda: _Named(making, steps), rows, losses_NM, fold_N)
    if not np.isfinite(means_NM).all():
        raise PluginError(
            f"regressor {name!r} predicts values that are not finite; leave it out of"
            " fit.regressors"
        )
    found = held_out(name, means_NM, objective, stds_NM=stds_NM)
    return _Entry(found, made if hasattr(made, "cross_fit") else None, uses_scale(made))


def _controls(
    trials: Trials, losses_NM: Array, fold_N: IntArray, objective: Objective
) -> list[HeldOut]:
    """Return the controls; of several sizes, for losses less the mean of their size."""
    group_N = size_groups(trials)
    means_SM = np.stack([losses_NM[group_N == group].mean(axis=0) for group in np.unique(group_N)])
    level_NM = means_SM[group_N] - means_SM.mean(axis=0)
    found = controls(trials.weights(), losses_NM - level_NM, fold_N, trials.domains, objective)
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


def _members(
    entries: Sequence[_Entry], contenders: Sequence[HeldOut], objective: Objective
) -> list[HeldOut]:
    """Return the held-out predictions of combined regressors' members, for the report."""
    found: dict[str, HeldOut] = {}
    for entry in entries:
        for name, means_NM in getattr(entry.fitted, "held_out_members", {}).items():
            found.setdefault(name, held_out(name, means_NM, objective, "member"))
    return [one for name, one in found.items() if name not in {c.name for c in contenders}]


class _Steps:
    """Counts the fits on folds."""

    def __init__(self, update: Update) -> None:
        self._update, self._done = update, 0

    def ended(self, name: str, fits: int = 1) -> None:
        self._done += fits
        self._update(self._done, name)


class _Named:
    """A regressor that says its name when it fails, and when it is fitted."""

    def __init__(self, making: _Making, steps: _Steps) -> None:
        self._name, self._regressor, self._steps = making.name, making.made(), steps

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
        stds_NM = np.zeros_like(losses_NM) if one.stds_NM is None else one.stds_NM
        deviations = {
            OBJECTIVE: objective.spread(stds_NM),
            **dict(zip(trials.targets, stds_NM.T, strict=True)),
        }
        frames += [
            pl.DataFrame(
                {
                    "trial": trials.table["trial"],
                    "fold": fold_N,
                    "observed": observed[t],
                    "predicted": predicted[t],
                    "std": deviations[t],
                }
            ).select(pl.lit(one.name).alias("predictor"), pl.lit(t).alias("target"), pl.all())
            for t in predicted
        ]
    return pl.concat(frames)
