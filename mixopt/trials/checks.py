"""Check that trials can be fitted, before anything is fitted."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import polars as pl

from mixopt.config import TASK
from mixopt.errors import ConfigError, TrialsError, did_you_mean
from mixopt.objective import Objective
from mixopt.trials.columns import listed
from mixopt.trials.readiness import without_noise
from mixopt.trials.table import Trials

LEAST_MIXTURES = 4


def check_trials(trials: Trials, objective: Objective, folds: int) -> None:
    """Check finished trials before a fit.

    Raises:
        TrialsError: Too few mixtures, a loss that is the same in all trials, or evaluation
            domains that are not the objective's.
    """
    _check_targets(trials, objective)
    _check_count(trials, folds)
    _check_losses(trials, objective)


def settled(objective: Objective, trials: Trials) -> Objective:
    """Return the objective with values from trials: spreads, and losses that are noise.

    Tasks that no trial was scored on are no losses of it.

    Raises:
        ConfigError: It measures a task that no trial was scored on, the trials cannot tell what is
            noise, or nothing is left.
    """
    objective = _of_scored(objective, trials)
    if objective.leave_out == "noise":
        objective = without_noise(objective, trials)
    if objective.scale == "none":
        return objective
    spreads_M = trials.finished.losses(objective.unit).std(axis=0)
    return objective.scaled(dict(zip(trials.targets, spreads_M.tolist(), strict=True)))


def _of_scored(objective: Objective, trials: Trials) -> Objective:
    absent = [n for n in objective.evaluation if n.startswith(TASK) and n not in trials.targets]
    for name in objective.measured:
        if name in absent:
            proxy = trials.table["proxy"][0]
            raise ConfigError(
                f"objective: no trial was scored on {name!r}: proxy {proxy!r} does not score "
                "tasks; use another proxy, or another objective"
            )
    if not absent:
        return objective
    return objective.over([name for name in objective.evaluation if name not in absent])


def without_flat_tasks(trials: Trials, measured: Collection[str]) -> Trials:
    """Return the trials without tasks that are equal in all of them, unless requested.

    The accuracy of small models is often the same in all trials.

    Args:
        trials: The trials of a sweep.
        measured: What the objective is made of.
    """
    done = trials.table.filter(pl.col("status") == "finished")
    flat = [
        name
        for name in trials.targets
        if name.startswith(TASK) and name not in measured and done[name].n_unique() == 1
    ]
    if not flat:
        return trials
    kept = [name for name in trials.targets if name not in flat]
    return trials.with_targets(kept).with_notes(f"left out {listed(flat)}: the same in every trial")


def trials_fingerprint(trials: Trials) -> str:
    """Return twelve hexadecimal digits that are the same for the same trials in any order."""
    kept = [name for name in trials.table.columns if name not in ("seconds", "reason")]
    rows = sorted(repr(row) for row in trials.table.select(kept).iter_rows())
    return hashlib.sha256("\n".join([repr(kept), *rows]).encode()).hexdigest()[:12]


def _check_targets(trials: Trials, objective: Objective) -> None:
    if objective.evaluation == trials.targets:
        return
    for name in objective.evaluation:
        if name not in trials.targets:
            near = did_you_mean(name, trials.targets)
            raise TrialsError(f"the trials have no losses on evaluation domain {name!r}{near}")
    raise TrialsError(
        f"the objective's evaluation domains are {', '.join(objective.evaluation)}; the trials' are"
        f" {', '.join(trials.targets)}: give both in the same order"
    )


def _check_count(trials: Trials, folds: int) -> None:
    mixtures = len(set(trials.mixtures))
    need = max(folds, LEAST_MIXTURES)
    if mixtures >= need:
        return
    lower = f", or lower fit.folds to {mixtures}" if mixtures >= LEAST_MIXTURES else ""
    raise TrialsError(
        f"{len(trials)} finished trials of {mixtures} different mixtures; {folds}-fold"
        f" cross-validation needs {need}: raise design.trials, train failed ones again with"
        f" --retry-failed{lower}"
    )


def _check_losses(trials: Trials, objective: Objective) -> None:
    losses_NM = trials.losses(objective.unit)
    for target, losses_N in zip(trials.targets, losses_NM.T, strict=True):
        if np.ptp(losses_N) <= 1e-9 * max(abs(float(losses_N[0])), 1e-12):
            raise TrialsError(
                f"the loss on {target!r} is {losses_N[0]:.6g} in all {len(trials)} trials, so no"
                " mixture is better than another on it: check its held-out text, or drop it from"
                " the evaluation domains"
            )
