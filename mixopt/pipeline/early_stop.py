"""Which trials of a round train to the end, and where the stopped ones would have ended.

All are compared at `sweep.stop.at` of their tokens. A fit of the best ones alone would know one
corner of the mixtures only: the others stay in the table, with estimates of their end.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mixopt.run_directory import Run, stated_objective, usable_trials
from mixopt.trials import Losses, Trial, TrialResult, Trials, settled

STOPPED_ROLES = ("axial", "sampled", "chosen")  # of trials that may be stopped
MIN_PAIRS = 3  # for a line


def continuing_trials(
    run: Run, trials: Sequence[Trial], results: Mapping[str, TrialResult]
) -> set[str]:
    """Return the trials that train to the end: the best of each round, and all anchors and seeds.

    They are compared by the objective on the losses with which the others are stopped.
    """
    stop, early = run.config.sweep.stop, _early_losses(results.values())
    assert stop is not None
    names = {trial.name for trial in trials if trial.role not in STOPPED_ROLES}
    for number in range(1 + max(trial.round for trial in trials)):
        # Later rounds change nothing: the objective may depend on noise and spread of the trials.
        known = [trial for trial in trials if trial.round <= number and trial.name in early]
        rivals = {t.name for t in trials if t.round == number} - names
        if not rivals & early.keys():
            continue
        ends = [
            replace(results[trial.name], status="finished", losses=early[trial.name])
            for trial in known
        ]
        table = Trials.from_results(known, ends, proxy="", targets=run.config.losses)
        table = usable_trials(run, table)
        objective = settled(stated_objective(run), table)
        order = np.argsort(objective.value(objective.losses(table)), kind="stable")
        ranked = [name for name in table.table["trial"][order.tolist()] if name in rivals]
        names.update(ranked[: math.ceil(stop.keep * len(rivals))])
    return names


def _early_losses(results: Collection[TrialResult]) -> dict[str, Losses]:
    """Return the losses of each trial at the point where others are stopped."""
    point = next((r.losses.tokens for r in results if r.status == "stopped" and r.losses), None)
    return {
        result.trial: losses
        for result in results
        for losses in (*result.curve, result.losses)
        if losses is not None and losses.tokens == point
    }


def with_estimated_ends(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the results with losses of stopped trials at the end, as estimates.

    Each loss is mapped by a line through the trials that have trained to the end.
    """
    early = _early_losses(results)
    whole = [r for r in results if r.status == "finished" and r.losses and r.trial in early]

    def estimated(result: TrialResult) -> TrialResult:
        if result.status != "stopped" or result.losses is None or not whole:
            return result
        values = {
            unit: {
                name: line(unit, name, value)
                for name, value in getattr(result.losses, unit).items()
            }
            for unit in ("nats_per_token", "bits_per_byte", "tasks")
        }
        tokens = whole[0].tokens
        return replace(result, tokens=tokens, losses=Losses(tokens, **values))

    def line(unit: str, name: str, value: float) -> float:
        pairs = [
            (getattr(early[r.trial], unit)[name], getattr(r.losses, unit)[name]) for r in whole
        ]
        before_N, after_N = np.array(pairs).T
        if np.ptp(before_N) == 0 or len(pairs) < MIN_PAIRS:
            return value + float(np.mean(after_N - before_N))
        slope, level = np.polyfit(before_N, after_N, 1)
        return float(level + slope * value)

    return [estimated(result) for result in results]
