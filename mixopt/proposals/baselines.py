"""The mixtures of baselines, those that are looked up among trials included.

`best_trial` is the trial with the best observed objective; `control` is the base mixture of
microanneals. All others are in mixopt.baselines.
"""

from collections.abc import Mapping

import numpy as np

from mixopt.baselines import CONTROL, FullRun, baseline_without_trials, best_place
from mixopt.errors import TrialsError
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import Trials


def baseline_mixture(
    name: str,
    weights: Mapping[str, float] | None,
    full: FullRun,
    trials: Trials,
    objective: Objective,
) -> Mixture:
    """Return the mixture of a baseline; `weights` are those of a user's own."""
    mixture = baseline_without_trials(name, weights, full)
    if mixture is not None:
        return mixture
    if name == CONTROL:
        mixture = _control(trials)
    else:
        _, mixture = best_trial(trials, objective, best_place(name) or 1)
    return mixture.over(full.natural.domains)


def _control(trials: Trials) -> Mixture:
    """Return the base mixture of microanneals, the mixture of their controls."""
    roles = trials.table["role"].to_list()
    if CONTROL not in roles:
        raise TrialsError("validate.baselines: control: no trial is a control of microanneals")
    return Mixture.from_array(trials.domains, trials.weights()[roles.index(CONTROL)])


def best_trial(trials: Trials, objective: Objective, place: int = 1) -> tuple[str, Mixture]:
    """Return the name and the mixture of the finished trial with the best observed objective.

    Args:
        trials: The trials.
        objective: The objective.
        place: Rank among different mixtures: 1 is the best trial, 2 the best with another mixture.

    Raises:
        TrialsError: There are fewer different mixtures.
    """
    finished = trials.full_length
    values_N = objective.value(objective.losses(finished))
    best: dict[str, int] = {}
    for row in np.argsort(values_N, kind="stable").tolist():
        best.setdefault(finished.mixtures[row], row)
    if place > len(best):
        raise TrialsError(
            f"best_trial: {place}: the trials have {len(best)} different mixtures; ask for fewer"
        )
    row = list(best.values())[place - 1]
    weights_D = finished.weights()[row]
    return finished.table["trial"][row], Mixture.from_array(finished.domains, weights_D)
