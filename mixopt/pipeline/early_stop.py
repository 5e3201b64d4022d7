"""Choose the trials of a round that train to the end, and estimate the final losses of the others.

All trials are compared at `sweep.stop.at` of their tokens. A fit of the best ones alone would know
only one corner of the mixtures, so the stopped ones stay in the table with estimated final losses.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mixopt.run_directory import Run, stated_objective, usable_trials
from mixopt.system import Array
from mixopt.trials import Losses, Trial, TrialResult, Trials, settled

STOPPED_ROLES = ("axial", "sampled", "chosen")  # of trials that may be stopped
MIN_PAIRS = 3  # for a line
UNITS = ("nats_per_token", "bits_per_byte", "tasks")  # fields of Losses by name


def continuing_trials(
    run: Run, trials: Sequence[Trial], results: Mapping[str, TrialResult]
) -> set[str]:
    """Return the trials that train to the end: the best of each round, and all anchors and seeds.

    They are compared by the objective on their losses at the point where the others stop.
    """
    stop = run.config.sweep.stop
    assert stop is not None
    early_losses = _early_losses(results.values())
    names = {trial.name for trial in trials if trial.role not in STOPPED_ROLES}
    for number in range(1 + max(trial.round for trial in trials)):
        rivals = {trial.name for trial in trials if trial.round == number} - names
        if not rivals & early_losses.keys():
            continue
        # The objective may depend on noise and spread of the trials; those of later rounds are left
        # out, so that they do not change an earlier choice.
        trials_so_far = [trial for trial in trials if trial.round <= number]
        ranked = _ranked(run, trials_so_far, results, early_losses)
        ranked_rivals = [name for name in ranked if name in rivals]
        names.update(ranked_rivals[: math.ceil(stop.keep * len(rivals))])
    return names


def _ranked(
    run: Run,
    trials: Sequence[Trial],
    results: Mapping[str, TrialResult],
    early_losses: Mapping[str, Losses],
) -> list[str]:
    """Return the names of the trials that have early losses, from the lowest objective."""
    compared = [trial for trial in trials if trial.name in early_losses]
    early_results = [
        replace(results[trial.name], status="finished", losses=early_losses[trial.name])
        for trial in compared
    ]
    table = Trials.from_results(compared, early_results, proxy="", targets=run.config.losses)
    table = usable_trials(run, table)
    objective = settled(stated_objective(run), table)
    order_N = np.argsort(objective.value(objective.losses(table)), kind="stable")
    names: list[str] = table.table["trial"][order_N.tolist()].to_list()
    return names


def _early_losses(results: Collection[TrialResult]) -> dict[str, Losses]:
    """Return the losses of each trial at the point where others are stopped."""
    point = _stopping_point(results)
    early_losses: dict[str, Losses] = {}
    for result in results:
        for losses in (*result.curve, result.losses):
            if losses is not None and losses.tokens == point:
                early_losses[result.trial] = losses
    return early_losses


def _stopping_point(results: Collection[TrialResult]) -> int | None:
    """Return the tokens at which trials were stopped; None if none was."""
    for result in results:
        if result.status == "stopped" and result.losses:
            return result.losses.tokens
    return None


def with_estimated_ends(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the results with estimated final losses for stopped trials.

    Each loss is mapped by a line through the trials that have trained to the end.
    """
    early_losses = _early_losses(results)
    whole = [
        result
        for result in results
        if result.status == "finished" and result.losses and result.trial in early_losses
    ]
    if not whole:
        return list(results)
    return [_with_estimated_end(result, whole, early_losses) for result in results]


def _with_estimated_end(
    result: TrialResult, whole: Sequence[TrialResult], early_losses: Mapping[str, Losses]
) -> TrialResult:
    """Return a result with estimates if it was stopped, from the trials that were not."""
    if result.status != "stopped" or result.losses is None:
        return result
    early = [early_losses[other.trial] for other in whole]
    final = [other.losses for other in whole]
    values: dict[str, dict[str, float]] = {unit: {} for unit in UNITS}
    for unit in UNITS:
        for name, value in getattr(result.losses, unit).items():
            early_N = np.array([getattr(losses, unit)[name] for losses in early])
            final_N = np.array([getattr(losses, unit)[name] for losses in final])
            values[unit][name] = _final_loss(value, early_N, final_N)
    tokens = whole[0].tokens
    return replace(result, tokens=tokens, losses=Losses(tokens, **values))


def _final_loss(early: float, early_N: Array, final_N: Array) -> float:
    """Return the final loss for an early one, by the line through N whole trials."""
    if np.ptp(early_N) == 0 or len(early_N) < MIN_PAIRS:
        return early + float(np.mean(final_N - early_N))
    slope, level = np.polyfit(early_N, final_N, 1)
    return float(level + slope * early)
