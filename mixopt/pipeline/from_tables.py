"""From tables that a user already has: fit them, propose from them, test the fit on new runs.

`fit_tables` leaves `trials.parquet` and `fit/` in a folder, which `evaluate_fit` and
mixopt.pipeline.from_fit read; both read a run directory as well.

Shapes: N trials, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.config import FitConfig, ObjectiveConfig
from mixopt.errors import ConfigError, RunError, TrialsError
from mixopt.fitting import Fit, Repetition, Size, aligned, evaluate, fit_trials
from mixopt.objective import Direction, Objective, Scale
from mixopt.system import progress
from mixopt.trials import Trials, Unit, listed


def fit_tables(
    mixtures: str | Path,
    losses: str | Path,
    out: str | Path,
    *,
    regressors: Sequence[str] = (),
    targets: Sequence[str] = (),
    seed: int = 0,
) -> Fit:
    """Fit regressors to published or exported tables and keep the fit in a folder.

    Args:
        mixtures: CSV or Parquet, a row for each trial: its key, and the weight of each domain.
        losses: CSV or Parquet, a row for each trial: its key, and its losses in nats per token.
        out: The folder; it must not hold a run.
        regressors: Which compete; the usual ones when empty.
        targets: What is minimised: the mean of these; of all losses when empty.
        seed: Of folds and regressors.

    Raises:
        TrialsError: A table cannot be used.
        ConfigError: An unknown target.
        RunError: The folder is a run directory, or cannot be written.
    """
    trials = Trials.from_csv(mixtures, losses)
    return fit_existing(trials, out, regressors=regressors, targets=targets, seed=seed)


def fit_existing(
    trials: Trials,
    out: str | Path,
    *,
    regressors: Sequence[str] = (),
    targets: Sequence[str] = (),
    direction: Mapping[str, Direction] | None = None,
    scale: Scale = "none",
    unit: Unit | None = None,
    size: Size | None = None,
    inventory: Mapping[str, float] | None = None,
    pilots: Trials | None = None,
    seed: int = 0,
) -> Fit:
    """Fit regressors to trials that there are, and keep the fit in a folder.

    A loss that is the same in all trials is left out, unless it is a target, and noted.

    Args:
        trials: Some of them finished.
        out: The folder; it must not hold a run.
        regressors: Which compete; the usual ones when empty.
        targets: What is minimised: the mean of these; of all losses when empty.
        direction: `higher` for each metric of which higher is better.
        scale: `spread` to divide each loss by its standard deviation over the trials.
        unit: Unit of the fit; nats per token where there are losses in them, when None.
        size: What is predicted at, from trials of several sizes; by `scaling` if none is named.
        inventory: Distinct tokens of each domain, for regressors that know of epochs.
        pilots: A few runs at the target size, which the fit is carried to.
        seed: Of folds and regressors.

    Raises:
        TrialsError: The trials cannot be fitted.
        ConfigError: An unknown target.
        RunError: The folder is a run directory, or cannot be written.
    """
    out = Path(out)
    if (out / "config.yaml").exists():
        raise RunError(f"{out}: is the directory of a run; use another --out")
    unit = unit or trials.unit
    trials = _informative(trials, targets, unit)
    objective = _objective(trials, targets, direction or {}, scale, unit)
    named = list(regressors) or ([] if size is None else ["scaling"])
    config = FitConfig(regressors=named) if named else FitConfig()
    repeated = None if inventory is None else Repetition.of_trials(trials.finished, inventory)
    if pilots is not None:
        aligned(pilots, trials.finished, objective)  # said before the fit, which may take long
    with progress("fit", len(config.regressors) * config.folds) as update:
        fitted = fit_trials(
            trials, config, objective, seed, size=size, repetition=repeated, update=update
        )
    fitted = fitted if pilots is None else fitted.with_pilots(pilots)
    trials.write(out / "trials.parquet")
    fitted.save(out / "fit")
    return fitted


def load_fit(directory: str | Path) -> Fit:
    """Read the fit of a run directory or of a folder that `fit_tables` made.

    Raises:
        RunError: There is none.
    """
    path = Path(directory) / "fit"
    if not (path / "fit.json").exists():
        raise RunError(
            f"{directory}: holds no fit; make one: mixopt run CONFIG --out {directory}, or"
            f" mixopt fit --mixtures W.csv --losses L.csv --out {directory}"
        )
    return Fit.load(path)


def evaluate_fit(
    directory: str | Path,
    mixtures: str | Path,
    losses: str | Path,
    *,
    unit: Unit = "nats_per_token",
    affine: bool = False,
) -> dict[str, Any]:
    """Test a fit against runs that it has not seen; see `mixopt.fitting.evaluation.evaluate`.

    Args:
        directory: A run directory, or a folder that `fit_tables` made.
        mixtures: CSV or Parquet of weights by domain.
        losses: CSV or Parquet of losses by evaluation domain.
        unit: Unit of the losses.
        affine: Map predictions to the scale of these runs first.

    Raises:
        TrialsError: A table cannot be used, or has other domains, targets or another unit than
            the fit.
    """
    return evaluate_existing(directory, Trials.from_csv(mixtures, losses, unit=unit), affine=affine)


def evaluate_existing(
    directory: str | Path, unseen: Trials, *, affine: bool = False
) -> dict[str, Any]:
    """Test a fit against trials that it has not seen; see `evaluate_fit`."""
    fitted = load_fit(directory)
    unit = fitted.objective.unit
    if not unseen.has(unit):
        raise TrialsError(
            f"{directory}: its fit is in {unit}, and these losses are not; say what they are in:"
            f" --unit, or fit again in their unit"
        )
    return evaluate(fitted, unseen, affine=affine)


def _informative(trials: Trials, targets: Sequence[str], unit: Unit) -> Trials:
    """Return the trials without losses that never change, unless they are asked for."""
    varies_M = np.ptp(trials.finished.losses(unit), axis=0) > 0
    kept = [n for n, varies in zip(trials.targets, varies_M, strict=True) if varies or n in targets]
    gone = [name for name in trials.targets if name not in kept]
    if not kept or not gone:
        return trials
    note = f"left out {listed(gone)}: the same loss in every trial"
    return trials.with_targets(kept).with_notes(note)


def _objective(
    trials: Trials,
    targets: Sequence[str],
    direction: Mapping[str, Direction],
    scale: Scale,
    unit: Unit,
) -> Objective:
    asked = list(dict.fromkeys(targets)) or list(trials.targets)
    if len(asked) == 1 and scale == "spread":
        raise ConfigError(f"--scale spread: is for a mean of targets, and {asked[0]!r} is alone")
    alone = {"target": asked[0]} if len(asked) == 1 else {"mean": dict.fromkeys(asked, 1.0)}
    config = ObjectiveConfig(**alone, unit=unit, direction=dict(direction), scale=scale)
    return Objective.from_config(config, trials.targets)
