"""Fit regressors to trials, compare them on held-out mixtures, and keep the best.

Every configured regressor predicts the same folds; replicates of a mixture are held out together.
The chosen one is the first named whose squared error of the objective exceeds the lowest by at most
the standard error of this difference; it is fitted again on all finished trials. The report lists
all, and the controls.

Trials of several sizes are predicted each at its own size and ranked within a size. Controls know
the mean of each size, so that the level of a size helps no predictor. Intervals at a size without
trials are the regressor's own.

Shapes: N trials, D domains, M evaluation domains.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mixopt.config import FitConfig, ObjectiveConfig, read_inventory
from mixopt.errors import ConfigError, PluginError, TrialsError
from mixopt.fitting.fit_data import (
    COLUMNS,
    FitData,
    ModelSize,
    ObjectiveLike,
    TrialSizes,
    check_finished,
    objective_over,
    requested_patterns,
)
from mixopt.fitting.fitted import Fit
from mixopt.fitting.held_out import (
    HeldOutPredictions,
    controls,
    held_out_table,
    report_table,
    with_objective,
)
from mixopt.fitting.pilots import aligned
from mixopt.fitting.regressor import (
    Predictor,
    Repetition,
    fit_regressor,
    named_errors,
    out_of_fold,
    supports,
    supports_sizes,
)
from mixopt.objective import Direction, Objective, Scale
from mixopt.system import Array, Update, no_progress, one_blas_thread, steady_progress
from mixopt.trials import Trials, Unit, listed


def fit_trials(
    trials: Trials,
    config: FitConfig,
    objective: Objective,
    seed: int,
    *,
    size: ModelSize | None = None,
    repetition: Repetition | None = None,
    carried: Trials | None = None,
    update: Update = no_progress,
) -> Fit:
    """Compare regressors on held-out folds and fit the best on all finished trials."""
    data = FitData(trials, objective, config.folds, seed, repetition, carried)
    names = list(dict.fromkeys(config.regressors))
    # Raise errors on names and sizes before any fit.
    at = data.sizes.size_of_fit({name: data.make(name) for name in names}, size)
    if at is not None:
        check_finished(data.trials)
    held_out: dict[str, HeldOutPredictions] = {}
    fitted: dict[str, Predictor] = {}
    with one_blas_thread(len(data.losses_NM)):
        for place, name in enumerate(names):
            held_out[name], predictor = _compete(name, data, place * data.folds, update)
            if predictor is not None:
                fitted[name] = predictor
        choice = _first_as_good(held_out, data.observed_N)
        if choice not in fitted:
            fitted[choice] = data.fitted(choice)
    regressors = list(held_out.values())
    members = _members(fitted, data, names)
    return Fit(
        name=choice,
        fitted=fitted[choice],
        data=data,
        report=report_table([*regressors, *members, *_controls(data)], data),
        held_out=held_out_table(regressors, data),
        size=at if supports_sizes(data.make(choice)) else None,
    )


def _first_as_good(held_out: Mapping[str, HeldOutPredictions], observed_N: Array) -> str:
    """Return the first name whose error exceeds the lowest by at most a standard error."""
    squares_N = {}
    for name, predictions in held_out.items():
        squares_N[name] = (predictions.predicted_NQ[:, 0] - observed_N) ** 2
    lowest_N = min(squares_N.values(), key=np.mean)

    def is_as_good(name: str) -> bool:
        excess_N = squares_N[name] - lowest_N
        return bool(excess_N.mean() <= excess_N.std(ddof=1) / np.sqrt(len(excess_N)))

    return next(filter(is_as_good, squares_N))


def _compete(
    name: str, data: FitData, steps: int, update: Update
) -> tuple[HeldOutPredictions, Predictor | None]:
    """Return held-out predictions, and the fit on all rows if `cross_fit` returned one."""
    regressor = data.make(name)
    rows = data.rows(name, regressor)
    fold_numbers = itertools.count(1)

    def fit_fold(rows: Array, losses_NM: Array) -> Predictor:
        predictor = fit_regressor(name, data.make(name), rows, losses_NM)
        update(steps + next(fold_numbers), name)
        return predictor

    def update_share(share: float, part: str) -> None:
        update(steps + data.folds * share, f"{name}: {part}")

    fitted: Predictor | None = None
    if supports(regressor, "cross_fit"):
        with named_errors(name, len(rows)):
            means_NM, stds_NM = regressor.cross_fit(rows, data.losses_NM, data.fold_N, update_share)
        fitted = regressor
        update(steps + data.folds, name)
    else:
        means_NM, stds_NM = out_of_fold(fit_fold, rows, data.losses_NM, data.fold_N)
    if not np.isfinite(means_NM).all():
        raise PluginError(
            f"regressor {name!r} predicts values that are not finite; leave it out of"
            " fit.regressors"
        )
    predicted_NQ = with_objective(data.objective, means_NM)
    return HeldOutPredictions(name, "regressor", predicted_NQ, predicted_NQ, stds_NM), fitted


def _members(
    fitted: Mapping[str, Predictor], data: FitData, names: Sequence[str]
) -> list[HeldOutPredictions]:
    """Return the held-out predictions of members of combined regressors, for the report."""
    by_member: dict[str, HeldOutPredictions] = {}
    for predictor in fitted.values():
        if not supports(predictor, "held_out_members"):
            continue
        for name, means_NM in predictor.held_out_members.items():
            if name not in names and name not in by_member:
                predicted_NQ = with_objective(data.objective, means_NM)
                by_member[name] = HeldOutPredictions(name, "member", predicted_NQ, predicted_NQ)
    return list(by_member.values())


def _controls(data: FitData) -> list[HeldOutPredictions]:
    """Return the controls; with several sizes, for losses minus the mean of their size."""
    losses_NM = data.losses_NM
    group_N = data.sizes.group_N
    means_SM = np.stack([losses_NM[group_N == group].mean(axis=0) for group in np.unique(group_N)])
    level_NM = means_SM[group_N] - means_SM.mean(axis=0)
    objective = data.objective
    domains = data.trials.domains
    results = controls(data.weights_ND, losses_NM - level_NM, data.fold_N, domains, objective)
    if len(means_SM) == 1:
        return results
    levelled = []
    for control in results:
        predicted_NM = control.predicted_NQ[:, 1:] + level_NM
        predicted_NQ = with_objective(objective, predicted_NM)
        levelled.append(replace(control, predicted_NQ=predicted_NQ))
    return levelled


def fit_unit(
    trials: Trials,
    objective: ObjectiveLike | None,
    direction: Mapping[str, Direction] | None,
    scale: Scale,
    unit: Unit | None,
) -> Unit:
    """Return the unit of losses in which a table is fitted."""
    if isinstance(objective, Objective):
        if direction or scale != "none" or unit not in (None, objective.unit):
            raise ConfigError(
                "objective: an Objective has its own unit, direction and scale; leave those out"
            )
        unit = objective.unit
    elif isinstance(objective, ObjectiveConfig) and "unit" in objective.model_fields_set:
        unit = unit or objective.unit
    return trials.unit if unit is None else unit


def prepared(
    trials: Trials,
    objective: ObjectiveLike | None,
    direction: Mapping[str, Direction] | None,
    scale: Scale,
    unit: Unit | None,
) -> tuple[Trials, Objective]:
    """Return the trials without constant losses, unless requested, and the objective over them."""
    unit = fit_unit(trials, objective, direction, scale, unit)
    requested = requested_patterns(objective)
    if not trials.targets:
        raise TrialsError("the trials have no losses: no column loss/NAME")
    varies_M = np.ptp(trials.finished.losses(unit), axis=0) > 0
    names: list[str] = []
    constant: list[str] = []
    for name, varies in zip(trials.targets, varies_M.tolist(), strict=True):
        if varies or name in requested:
            names.append(name)
        else:
            constant.append(name)
    if names and constant:
        note = f"left out {listed(constant)}: the same loss in every trial"
        trials = trials.with_targets(names).with_notes(note)
    return trials, objective_over(
        trials.targets, objective, unit=unit, direction=direction, scale=scale, items=trials.items
    )


def fit_table(
    trials: Trials,
    objective: Objective,
    *,
    regressors: str | Sequence[str],
    size: ModelSize | Mapping[str, float] | None,
    inventory: Mapping[str, float] | str | Path | None,
    pilots: Trials | None,
    carried: Trials | None,
    seed: int,
) -> Fit:
    """Fit regressors to trials and choose one; arguments as in `Trials.fit`."""
    names = [regressors] if isinstance(regressors, str) else regressors
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "regressors: expected a name, several names, or package.module:Class; got"
            f" {regressors!r}"
        )
    if names:
        config = FitConfig(regressors=list(names))
    else:
        config = _default_config(trials, is_sized=size is not None)
    if size is not None and not isinstance(size, ModelSize):
        if not isinstance(size, Mapping) or not set(size) <= set(COLUMNS):
            raise ConfigError(f"size: expected parameters, tokens or both, by name; got {size!r}")
        sizes = TrialSizes.of(trials.finished)
        size = sizes.shared(size.get("parameters"), size.get("tokens"))
    repetition = None
    if inventory is not None:
        counts = read_inventory(inventory, trials.domains)
        repetition = Repetition.of_trials(trials.finished, counts)
    if pilots is not None:
        aligned(pilots, trials.finished, objective)  # errors first: a fit may take long
    with steady_progress("fit", len(config.regressors) * config.folds) as update:
        fitted = fit_trials(
            trials,
            config,
            objective,
            seed,
            size=size,
            repetition=repetition,
            carried=carried,
            update=update,
        )
    return fitted if pilots is None else fitted.with_pilots(pilots)


def _default_config(trials: Trials, *, is_sized: bool) -> FitConfig:
    """Return the default regressors, for trials of stages or for a fit at a size too."""
    if is_sized:
        return FitConfig(regressors=["scaling"])
    if trials.phases is not None:
        return FitConfig(regressors=["phases", *FitConfig().regressors])
    return FitConfig()
