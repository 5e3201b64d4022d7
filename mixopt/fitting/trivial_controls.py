"""Controls that a regressor must beat: rankings and predictions without a law.

- own_share: the domain's own share. For a training domain's loss the ranking is by minus that
  share, nothing fitted; for a target that is not trained on, it is the single domain whose share
  ranks the losses best in the training folds. The prediction is a straight line in the square
  root of the share, because losses fall steeply where a share is near 0.
- from_uniform: total variation from the uniform mixture, farther being worse; the prediction is
  a straight line in it.
- nearest_trial: the losses of the nearest mixture, in total variation, of the training folds.
- mean: the mean of the training folds; it ranks nothing.

All predictions are for held-out folds, from the other folds alone.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

import numpy as np

from mixopt.fitting.cross_validation import spearman, splits
from mixopt.fitting.held_out_predictions import HeldOutPredictions, held_out
from mixopt.mixture import pairwise_total_variation
from mixopt.objective import Objective
from mixopt.system import Array, IntArray


def controls(
    weights_ND: Array,
    losses_NM: Array,
    fold_N: IntArray,
    domains: tuple[str, ...],
    objective: Objective,
) -> list[HeldOutPredictions]:
    """Return all controls, predicted for held-out folds."""
    nearest_NM, mean_NM = np.empty_like(losses_NM), np.empty_like(losses_NM)
    for train_N, out_N in splits(fold_N):
        apart_NK = pairwise_total_variation(weights_ND[out_N], weights_ND[train_N])
        near = np.argmin(apart_NK, axis=1)
        nearest_NM[out_N] = losses_NM[train_N][near]
        mean_NM[out_N] = losses_NM[train_N].mean(axis=0)
    return [
        _own_share(weights_ND, losses_NM, fold_N, domains, objective),
        _from_uniform(weights_ND, losses_NM, fold_N, objective),
        held_out("nearest_trial", nearest_NM, objective, "control"),
        HeldOutPredictions("mean", "control", mean_NM, objective.value(mean_NM), None, None),
    ]


def _own_share(
    weights_ND: Array,
    losses_NM: Array,
    fold_N: IntArray,
    domains: tuple[str, ...],
    objective: Objective,
) -> HeldOutPredictions:
    predicted_NM = np.empty_like(losses_NM)
    for train_N, out_N in splits(fold_N):
        for column, target in enumerate(objective.evaluation):
            losses_N = losses_NM[train_N, column]
            domain = _domain_for(target, domains, weights_ND[train_N], losses_N)
            root_N = np.sqrt(weights_ND[:, domain])
            predicted_NM[out_N, column] = _line(root_N[train_N], losses_N, root_N[out_N])
    ranks_NM = predicted_NM.copy()
    for column, target in enumerate(objective.evaluation):
        if target in domains:
            own_N = weights_ND[:, domains.index(target)]
            ranks_NM[:, column] = -objective.signs[column] * own_N
    objective_N = objective.value(predicted_NM)
    only = objective.columns[0] if objective.kind == "target" else None
    ranks_N = objective_N if only is None else objective.signs[only] * ranks_NM[:, only]
    return HeldOutPredictions("own_share", "control", predicted_NM, objective_N, ranks_NM, ranks_N)


def _domain_for(target: str, domains: tuple[str, ...], weights_ND: Array, losses_N: Array) -> int:
    """Return the domain of that name, else the one whose share ranks the losses best."""
    if target in domains:
        return domains.index(target)
    strength = [abs(spearman(shares_N, losses_N) or 0.0) for shares_N in weights_ND.T]
    return int(np.argmax(strength))


def _from_uniform(
    weights_ND: Array, losses_NM: Array, fold_N: IntArray, objective: Objective
) -> HeldOutPredictions:
    domains = weights_ND.shape[1]
    uniform_1D = np.full((1, domains), 1.0 / domains)
    distance_N = pairwise_total_variation(weights_ND, uniform_1D)[:, 0]
    predicted_NM = np.empty_like(losses_NM)
    for train_N, out_N in splits(fold_N):
        for column, losses_N in enumerate(losses_NM[train_N].T):
            predicted_NM[out_N, column] = _line(distance_N[train_N], losses_N, distance_N[out_N])
    ranks_NM = distance_N[:, None] * objective.signs
    objective_N = objective.value(predicted_NM)
    return HeldOutPredictions(
        "from_uniform", "control", predicted_NM, objective_N, ranks_NM, distance_N
    )


def _line(x_N: Array, y_N: Array, at_N: Array) -> Array:
    """Fit a straight line to the training rows and return it at others."""
    variance = float(x_N.var())
    slope = float(((x_N - x_N.mean()) * (y_N - y_N.mean())).mean()) / variance if variance else 0.0
    line: Array = y_N.mean() + slope * (at_N - x_N.mean())
    return line
