"""Fit regressors to trials, compare them on held-out mixtures, and keep the best.

Every regressor of the configuration predicts the same folds, in which a mixture and its
replicates are held out together. The one with the least root mean squared error of the objective
is fitted again on all finished trials; the others stay in the report, beside their controls.

Trials of several sizes are predicted each at its own size; they are ranked within a size, and the
controls know the mean of each, so that a size's level counts for nobody. Held-out folds of mixtures
tell nothing of a size that no trial has, so the largest size is held out too: by how much wider
intervals of the smaller ones would have to be to hold its trials, for a unit of log size, is how
intervals grow beyond all sizes (`growth_beyond`).

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from mixopt.config import FitConfig, ObjectiveConfig, one_of, read_inventory
from mixopt.errors import ConfigError, PluginError, TrialsError
from mixopt.fitting.capabilities import (
    Abilities,
    Predictor,
    supports,
    supports_sizes,
)
from mixopt.fitting.cross_validation import out_of_fold
from mixopt.fitting.fit_data import FitData, ObjectiveLike, asked_patterns, objective_over
from mixopt.fitting.fitted import Fit
from mixopt.fitting.held_out import (
    HeldOutPredictions,
    controls,
    held_out,
    held_out_table,
    report_table,
)
from mixopt.fitting.intervals import conformal_quantile
from mixopt.fitting.model_sizes import COLUMNS, ModelSize, asked_size, check_finished, size_of_fit
from mixopt.fitting.pilots import aligned
from mixopt.fitting.regressor import (
    Repetition,
    cross_fit_regressor,
    fit_regressor,
    predict_with_std,
)
from mixopt.objective import Direction, Objective, Scale
from mixopt.system import Array, Update, no_progress, one_blas_thread, steady_progress
from mixopt.trials import Trials, Unit, listed


def growth_beyond(fit: Fit) -> float:
    """Return the growth of a fit's intervals for a unit of log size, >= 0."""
    sizes = fit.data.sizes
    if fit.size is None or sizes.count < 2 or not sizes.beyond(fit.size):
        return 0.0
    size, held_N = sizes.largest()
    rows, losses_NM = fit.rows(), fit.data.losses_NM
    smaller = fit.data.make(fit.name)
    fitted = fit_regressor(fit.name, smaller, rows[~held_N], losses_NM[~held_N])
    means_NM, stds_NM = predict_with_std(fitted, rows[held_N])
    pairs = zip(fit.calibrations, stds_NM.T, strict=True)
    halves_NM = np.stack([one.halves(std_N) for one, std_N in pairs], axis=1)
    times_NM = np.abs(losses_NM[held_N] - means_NM) / halves_NM
    # A loss is off at a size in all mixtures together: losses count, not trials.
    times_M = np.array([conformal_quantile(times_N) for times_N in times_NM.T])
    return max(conformal_quantile(times_M) - 1.0, 0.0) / sizes.beyond(size, ~held_N)


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
    """Compare regressors on held-out folds and fit the best on all finished trials."""
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
    if supports(made, "cross_fit"):
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
    name: str, made: Abilities, rows: Array, data: FitData, steps: _Steps
) -> tuple[Array, Array]:
    folds = len(np.unique(data.fold_N))
    if supports(made, "watch"):
        made.watch(lambda share, part: steps.at(folds * share, f"{name}: {part}"))
    answer = cross_fit_regressor(name, made, rows, data.losses_NM, data.fold_N)
    steps.ended(name, folds)
    return answer


def _members(contenders: Sequence[_Contender], data: FitData) -> list[HeldOutPredictions]:
    """Return the held-out predictions of combined regressors' members, for the report."""
    found: dict[str, HeldOutPredictions] = {}
    for one in contenders:
        if one.fitted is not None and supports(one.fitted, "held_out_members"):
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


def fit_table(
    trials: Trials,
    *,
    regressors: str | Sequence[str] = (),
    objective: ObjectiveLike | None = None,
    direction: Mapping[str, Direction] | None = None,
    scale: Scale = "none",
    unit: Unit | None = None,
    size: ModelSize | Mapping[str, float] | None = None,
    inventory: Mapping[str, float] | str | Path | None = None,
    pilots: Trials | None = None,
    seed: int = 0,
) -> Fit:
    """Fit regressors to trials and choose one; see `Trials.fit`, whose arguments these are."""
    if isinstance(objective, Objective):
        unit = _unit_of(objective, direction, scale, unit)
    elif isinstance(objective, ObjectiveConfig) and "unit" in objective.model_fields_set:
        unit = unit or objective.unit
    unit = trials.unit if unit is None else unit
    one_of("unit", unit, get_args(Unit))
    asked = asked_patterns(objective)
    if not trials.targets:
        raise TrialsError("the trials have no losses: no column loss/NAME")
    trials = _informative(trials, list(asked), unit)
    aim = objective_over(trials.targets, objective, unit=unit, direction=direction, scale=scale)
    config = _config(regressors, sized=size is not None)
    at = _size(trials, size)
    repetition = _repetition(trials, inventory)
    if pilots is not None:
        _check_pilots(pilots, trials, aim)  # before the fit, which may take long
    with steady_progress("fit", len(config.regressors) * config.folds) as update:
        fitted = fit_trials(
            trials, config, aim, seed, size=at, repetition=repetition, update=update
        )
    return fitted if pilots is None else fitted.with_pilots(pilots)


def _unit_of(
    objective: Objective, direction: Mapping[str, Direction] | None, scale: Scale, unit: Unit | None
) -> Unit:
    if direction or scale != "none" or unit not in (None, objective.unit):
        raise ConfigError(
            "objective: an Objective has its own unit, direction and scale; leave those out"
        )
    return objective.unit


def _informative(trials: Trials, asked: Sequence[str], unit: Unit) -> Trials:
    """Return the trials without losses that never change, unless they are asked for."""
    varies_M = np.ptp(trials.finished.losses(unit), axis=0) > 0
    kept = [n for n, varies in zip(trials.targets, varies_M, strict=True) if varies or n in asked]
    gone = [name for name in trials.targets if name not in kept]
    if not kept or not gone:
        return trials
    note = f"left out {listed(gone)}: the same loss in every trial"
    return trials.with_targets(kept).with_notes(note)


def _config(regressors: str | Sequence[str], *, sized: bool) -> FitConfig:
    names = [regressors] if isinstance(regressors, str) else regressors
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "regressors: expected a name, several names, or package.module:Class; got"
            f" {regressors!r}"
        )
    if not names:
        return FitConfig(regressors=["scaling"]) if sized else FitConfig()
    return FitConfig(regressors=list(names))


def _size(trials: Trials, size: ModelSize | Mapping[str, float] | None) -> ModelSize | None:
    if size is None or isinstance(size, ModelSize):
        return size
    if not isinstance(size, Mapping) or not set(size) <= set(COLUMNS):
        raise ConfigError(f"size: expected parameters, tokens or both, by name; got {size!r}")
    return asked_size(trials.finished, size.get("parameters"), size.get("tokens"))


def _repetition(
    trials: Trials, inventory: Mapping[str, float] | str | Path | None
) -> Repetition | None:
    if inventory is None:
        return None
    return Repetition.of_trials(trials.finished, read_inventory(inventory, trials.domains))


def _check_pilots(pilots: Trials, trials: Trials, objective: Objective) -> None:
    if not isinstance(pilots, Trials):
        raise TrialsError(
            f"pilots: expected Trials, such as Trials.from_csv(mixtures, losses); got {pilots!r}"
        )
    aligned(pilots, trials.finished, objective)
