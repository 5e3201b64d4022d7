"""Fit a user's table of trials, with the user's options: `Trials.fit`.

What is not said is as `mixopt fit` has it: the usual regressors compete, and the mean of all losses
is minimised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from mixopt.config import FitConfig, ObjectiveConfig, one_of, read_inventory
from mixopt.errors import ConfigError, TrialsError
from mixopt.fitting.aim import ObjectiveLike, asked_patterns, objective_over
from mixopt.fitting.competition import fit_trials
from mixopt.fitting.fitted import Fit
from mixopt.fitting.model_sizes import COLUMNS, ModelSize, asked_size
from mixopt.fitting.pilots import aligned
from mixopt.fitting.repetition import Repetition
from mixopt.objective import Direction, Objective, Scale
from mixopt.system import steady_progress
from mixopt.trials import Trials, Unit, listed


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
    """Fit regressors to trials and choose one; see `Trials.fit`, whose arguments these are.

    Raises:
        TrialsError: The trials or the pilots cannot be fitted.
        ConfigError: An argument that cannot be right.
        PluginError: A regressor that is unknown or fails.
    """
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
