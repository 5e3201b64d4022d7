"""Factor analysis of metrics, and alternative objectives.

Metrics share noise: in an average of many, a common factor that does not depend on the mixture may
dominate (as in Marin's mean of 20 tasks). Factors of the standardised metrics are ordered by how
well they follow the mixture. Alternative objectives are listed with their held-out correlation, and
with their correlation to the present objective; what they leave out is chosen on other folds than
those that judge it. None is used unless the configuration names it.

Sources: maximum likelihood factors, Joreskog (1967); their number, Horn's parallel analysis (1965).

Shapes: N trials, M metrics, F factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mixopt.fitting.rank_correlation import lower_bound, spearman
from mixopt.fitting.regressor import splits
from mixopt.objective import Objective, grouped_names
from mixopt.system import Array
from mixopt.trials import noise_of_trials

if TYPE_CHECKING:
    from mixopt.fitting.fitted import Fit

MAX_FACTORS = 4
MIN_METRICS = 4  # for a factor analysis


@dataclass(frozen=True)
class Factor:
    """A common factor of several metrics over the trials.

    Attributes:
        share: Share of the variance of all standardised metrics.
        spearman: Held-out rank correlation between its score and the score of the predictions.
        loadings: Correlation with each metric; signs such that higher is better.
        weights: Weight of each standardised metric in the score; those above 0 form an objective.
    """

    share: float
    spearman: float | None
    loadings: dict[str, float]
    weights: dict[str, float]


@dataclass(frozen=True)
class Offer:
    """An alternative objective.

    Attributes:
        name: Its name in words or as in a configuration.
        objective: The objective, with spreads from the trials.
        spearman: Rank correlation of its held-out predictions with its observed values.
        ranks_current: Rank correlation of its held-out predictions with the present objective.
        reason: What it leaves out, and why.
    """

    name: str
    objective: Objective
    spearman: float | None
    ranks_current: float | None
    reason: str

    @property
    def section(self) -> dict[str, Any]:
        """The section `objective:` of a configuration that uses it."""
        objective, items = self.objective, dict(self.objective.items)
        weights = {name: float(f"{weight:.4g}") for name, weight in objective.weights.items()}
        stated: dict[str, Any] = {"mean": weights, "scale": "spread"}
        if objective.kind == "hinge":
            stated = {"hinge": objective.measured[0]}
        turned = {name: "higher" for name in objective.higher if name not in items}
        optional = {"unit": objective.unit, "direction": turned, "items": items}
        return stated | {name: value for name, value in optional.items() if value}

    def to_json(self) -> dict[str, Any]:
        """Return the figures and the section as JSON values."""
        return {
            "name": self.name,
            "spearman": self.spearman,
            "ranks_current": self.ranks_current,
            "reason": self.reason,
            "objective": self.section,
        }


def factors(objective: Objective, losses_NM: Array, predicted_NM: Array) -> tuple[Factor, ...]:
    """Return the factors of the standardised metrics, and how much each follows the mixture."""
    scale_M = losses_NM.std(axis=0)
    varied = np.flatnonzero(scale_M > 0)
    if len(varied) < MIN_METRICS or len(losses_NM) <= len(varied):
        return ()
    turn_M = -1.0 / scale_M[varied]  # above 0 is better
    mean_M = losses_NM[:, varied].mean(axis=0)
    scaled_NM, scaled_predicted_NM = (
        (values_NM[:, varied] - mean_M) * turn_M for values_NM in (losses_NM, predicted_NM)
    )
    loadings_MF = _loadings(scaled_NM)
    if not loadings_MF.shape[1]:
        return ()
    unique_M = np.maximum(1.0 - (loadings_MF**2).sum(axis=1), MIN_UNIQUE)
    scaled_MF = loadings_MF / unique_M[:, None]
    inner_FF = np.eye(loadings_MF.shape[1]) + loadings_MF.T @ scaled_MF
    weights_MF = np.linalg.solve(inner_FF, scaled_MF.T).T
    shared_FF = (scaled_NM @ weights_MF).T @ (scaled_predicted_NM @ weights_MF)
    _, turn_FF = np.linalg.eigh(shared_FF + shared_FF.T)
    loadings_MF, weights_MF = loadings_MF @ turn_FF[:, ::-1], weights_MF @ turn_FF[:, ::-1]
    upright_F = np.where(loadings_MF.sum(axis=0) < 0, -1.0, 1.0)
    names = [objective.evaluation[place] for place in varied]
    return tuple(
        Factor(
            float((loads_M**2).mean()),
            spearman(scaled_predicted_NM @ weights_M, scaled_NM @ weights_M),
            dict(zip(names, loads_M.tolist(), strict=True)),
            dict(zip(names, weights_M.tolist(), strict=True)),
        )
        for loads_M, weights_M in zip(
            (loadings_MF * upright_F).T, (weights_MF * upright_F).T, strict=True
        )
    )


MIN_UNIQUE = 0.05  # minimum share of a metric's variance outside the factors
SIMULATED = 50  # tables of noise for the parallel analysis


def _loadings(metrics_NM: Array) -> Array:
    """Return the loadings of the factors that exceed noise, shape (M, F)."""
    count, metrics = metrics_NM.shape
    matrix_MM = np.corrcoef(metrics_NM.T)
    rng = np.random.default_rng(0)
    noise = [
        np.linalg.eigvalsh(np.corrcoef(rng.standard_normal((metrics, count))))
        for _ in range(SIMULATED)
    ]
    beyond_M = np.linalg.eigvalsh(matrix_MM)[::-1] > np.quantile(noise, 0.95, axis=0)[::-1]
    number = min(int(np.argmin(beyond_M)) if not beyond_M.all() else metrics, MAX_FACTORS)
    unique_M, loadings_MF = np.full(metrics, 0.5), np.zeros((metrics, number))
    for _ in range(100):
        root_M = np.sqrt(unique_M)
        values_M, vectors_MM = np.linalg.eigh(matrix_MM / np.outer(root_M, root_M))
        top_F = np.sqrt(np.maximum(values_M[::-1][:number] - 1.0, 0.0))
        loadings_MF = root_M[:, None] * vectors_MM[:, ::-1][:, :number] * top_F
        unique_M = np.maximum(1.0 - (loadings_MF**2).sum(axis=1), MIN_UNIQUE)
    return loadings_MF


Choice = Callable[[Objective, Array, Array], tuple[Objective, str]]


def offers(fit: Fit, predicted_NM: Array) -> tuple[Offer, ...]:
    """Return the objective and alternatives, each judged on folds that did not choose it."""
    objective, data = fit.objective, fit.data
    if objective.kind != "mean" or len(objective.weights) < MIN_METRICS:
        return ()
    noise = noise_of_trials(fit.trials, objective, data.losses_NM).by_name
    choices: dict[str, Choice] = {} if objective.scale == "spread" else {"scale: spread": _all}
    choices |= {"ranked metrics": _ranked_metrics, "first factor": _first_factor}
    if all(noise.get(name, 0.0) > 0 for name in objective.evaluation):
        choices["hinge"] = partial(_hinge, noise=noise)
    predicted_N = objective.value(predicted_NM)
    rank = spearman(predicted_N, data.observed_N)
    offered = [Offer("the objective", objective, rank, rank, "")]
    for name, choose in choices.items():
        predicted_N, observed_N = np.empty(len(data.losses_NM)), np.empty(len(data.losses_NM))
        for rest_N, out_N in splits(data.fold_N):
            chosen, _ = choose(objective, data.losses_NM[rest_N], predicted_NM[rest_N])
            middle = chosen.value(data.losses_NM[rest_N]).mean()
            predicted_N[out_N], observed_N[out_N] = (
                chosen.value(values_NM[out_N]) - middle
                for values_NM in (predicted_NM, data.losses_NM)
            )
        chosen, reason = choose(objective, data.losses_NM, predicted_NM)
        ranks = spearman(predicted_N, observed_N), spearman(predicted_N, data.observed_N)
        offered.append(Offer(name, chosen, *ranks, reason))
    return tuple(offered)


def _in_spreads(objective: Objective, losses_NM: Array, weights: Mapping[str, float]) -> Objective:
    """Return the weighted mean of metrics, each divided by its spread over the trials."""
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    spreads_M = losses_NM.std(axis=0)
    divisors_M = np.where(spreads_M > 0, spreads_M, 1.0)  # a metric may be constant in a fold
    spreads = dict(zip(objective.evaluation, divisors_M.tolist(), strict=True))
    return objective.of("mean", shares).scaled(spreads)


def _all(objective: Objective, losses_NM: Array, _predicted_NM: Array) -> tuple[Objective, str]:
    scaled = _in_spreads(objective, losses_NM, objective.weights)
    return scaled, "each metric counts in its own standard deviations"


def _ranks(objective: Objective, losses_NM: Array, predicted_NM: Array) -> dict[str, float]:
    return {
        name: spearman(predicted_NM[:, column], losses_NM[:, column]) or 0.0
        for name, column in zip(objective.weights, objective.columns, strict=True)
    }


def _ranked_metrics(
    objective: Objective, losses_NM: Array, predicted_NM: Array
) -> tuple[Objective, str]:
    """Select the metrics whose held-out rank correlation is significantly above 0."""
    count, weights = len(losses_NM), objective.weights
    ranks = _ranks(objective, losses_NM, predicted_NM)
    ranked = {n: weights[n] for n, r in ranks.items() if count > 3 and lower_bound(r, count) > 0}
    dropped = [name for name in weights if name not in ranked]
    if not ranked or not dropped:
        return _in_spreads(objective, losses_NM, weights), "no metric is left out"
    reason = f"without {grouped_names(dropped)}: their arms are not ranked at all"
    return _in_spreads(objective, losses_NM, ranked), reason


def _first_factor(
    objective: Objective, losses_NM: Array, predicted_NM: Array
) -> tuple[Objective, str]:
    """Select the metrics of the factor that follows the mixture most."""
    ordered = factors(objective, losses_NM, predicted_NM)
    weights = {
        n: w for n, w in (ordered[0].weights if ordered else {}).items() if n in objective.weights
    }
    positive = {name: weight for name, weight in weights.items() if weight > 0}
    reason = "metrics weigh as in the factor that follows the mixture most"
    if not positive:
        positive, reason = dict(objective.weights), "no factor stands out of noise"
    return _in_spreads(objective, losses_NM, positive), reason


def _hinge(
    objective: Objective, losses_NM: Array, predicted_NM: Array, *, noise: Mapping[str, float]
) -> tuple[Objective, str]:
    """Select the metric with the largest weight, or among equals the best ranked, as target."""
    ranks, weights = _ranks(objective, losses_NM, predicted_NM), objective.weights
    target = max(weights, key=lambda name: (weights[name], ranks[name]))
    names = dict.fromkeys((target, *objective.evaluation), 1.0)
    means = dict(zip(objective.evaluation, losses_NM.mean(axis=0).tolist(), strict=True))
    reason = f"{target} in units of noise, held where another falls by more than its noise"
    return objective.of("hinge", names).against(means, noise), reason
