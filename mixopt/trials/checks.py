"""Checks of trials before a fit, and the hash that names them."""

import hashlib
from collections.abc import Collection

import numpy as np

from mixopt.config import TASK
from mixopt.errors import TrialsError, did_you_mean
from mixopt.objective import Objective
from mixopt.system import Array
from mixopt.trials.columns import HAS_LOSSES, listed
from mixopt.trials.table import Trials

MIN_MIXTURES = 4
CONSTANT = 1e-9  # relative spread of losses below which they count as equal


def check_trials(trials: Trials, objective: Objective, folds: int) -> None:
    """Check finished trials before a fit."""
    _check_targets(trials, objective)
    mixtures = len(set(trials.mixtures))
    need = max(folds, MIN_MIXTURES)
    if mixtures < need:
        lower = ""
        if mixtures >= MIN_MIXTURES:
            lower = f", or lower fit.folds to {mixtures}"
        raise TrialsError(
            f"{len(trials)} finished trials of {mixtures} different mixtures; {folds}-fold"
            f" cross-validation needs {need}: raise design.trials, train failed ones again with"
            f" --retry-failed{lower}"
        )
    losses_NM = trials.losses(objective.unit)
    for target, losses_N in zip(trials.targets, losses_NM.T, strict=True):
        if np.ptp(losses_N) <= CONSTANT * max(abs(float(losses_N[0])), 1e-12):
            raise TrialsError(
                f"the loss on {target!r} is {losses_N[0]:.6g} in all {len(trials)} trials, so no"
                " mixture is better than another on it: check its held-out text, or drop it from"
                " the evaluation domains"
            )
        if target in objective.items:
            _check_shares(trials, target, losses_N, objective.items[target])


def without_flat_tasks(trials: Trials, measured: Collection[str]) -> Trials:
    """Return the trials without constant tasks, unless these are requested."""
    finished = trials.table.filter(HAS_LOSSES)
    flat = [
        name
        for name in trials.targets
        if name.startswith(TASK) and name not in measured and finished[name].n_unique() == 1
    ]
    if not flat:
        return trials
    names = [name for name in trials.targets if name not in flat]
    return trials.with_targets(names).with_notes(
        f"left out {listed(flat)}: the same in every trial"
    )


def trials_fingerprint(trials: Trials) -> str:
    """Return a hash of 12 hexadecimal digits that does not depend on the order of trials."""
    columns = [name for name in trials.table.columns if name not in ("seconds", "reason")]
    rows = sorted(repr(row) for row in trials.table.select(columns).iter_rows())
    return hashlib.sha256("\n".join([repr(columns), *rows]).encode()).hexdigest()[:12]


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


def _check_shares(trials: Trials, target: str, values_N: Array, questions: int) -> None:
    """Raise TrialsError if a metric with a number of questions is no share of right answers."""
    highest = float(values_N.max())
    row = int(np.argmax(values_N if highest > 1.0 else -values_N))
    if 0.0 <= values_N[row] <= 1.0:
        return
    hint = f"correct it, or the number of questions in items/{target}"
    if (values_N % 1.0 == 0.0).all() and values_N.min() >= 0.0 and highest <= questions:
        hint = f"divide counts by {questions}"
    elif values_N.min() >= 0.0 and highest <= 100.0:
        hint = "divide by 100 if it is in percent"
    raise TrialsError(
        f"objective.items: {target!r} is {values_N[row]:g} in trial"
        f" {trials.table['trial'][row]!r} of {questions} questions; a share of right answers is"
        f" from 0 to 1: {hint}"
    )
