"""Trials of a synthetic law, and fits of them."""

from dataclasses import replace

import numpy as np

from mixopt.config import FitConfig
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.trials import Losses, Trial, TrialResult, Trials

DOMAINS = ("code", "prose", "law")
TARGETS = (*DOMAINS, "math")
NOISE = 0.02


def linear_law(weights_ND):
    """Synthetic losses, linear in the mixture: each domain helps itself, code helps math."""
    slopes_DM = np.array([[-2, 0, 0, -1.5], [0, -1, -0.5, 0], [0, -0.5, -3, 0.0]])
    return 3.0 + weights_ND @ slopes_DM


def make_trials(losses=linear_law, count=24, replicates=4, seed=0):
    rng = np.random.default_rng(seed)
    weights_ND = rng.dirichlet(np.ones(3), count)
    weights_ND = np.vstack([weights_ND, np.full((replicates, 3), 1 / 3)])
    losses_NM = losses(weights_ND) + NOISE * rng.standard_normal((len(weights_ND), 4))
    return table(weights_ND, losses_NM)


def table(
    weights_ND, losses_NM, domains=DOMAINS, targets=TARGETS, sizes=((10, 1000),), name="t"
) -> Trials:
    """Return finished trials t000, t001, ... of these mixtures with these losses.

    Sizes are parameters and tokens, of which trials take the next in turn.
    """
    trials, results = [], []
    for row, (weights_D, losses_M) in enumerate(zip(weights_ND, losses_NM, strict=True)):
        values = dict(zip(targets, np.ravel(losses_M).tolist(), strict=True))
        trial = f"{name}{row:03d}"
        trials.append(Trial(trial, Mixture.from_array(domains, weights_D), seed=row))
        parameters, tokens = (int(part) for part in sizes[row % len(sizes)])
        losses = Losses(1000, values, values)
        results.append(TrialResult(trial, "finished", tokens, parameters, 1.0, losses))
    return Trials.from_results(trials, results, proxy="synthetic")


def objective(*names, kind="mean"):
    return Objective(TARGETS, kind, dict.fromkeys(names, 1 / len(names) if kind == "mean" else 1.0))


def fitted(*regressors, trials=None, folds=5, goal=None):
    config = FitConfig(regressors=list(regressors or ("linear", "log_linear")), folds=folds)
    return fit_trials(trials or make_trials(), config, goal or objective("code", "law"), 0)


def with_objective(fit, objective):
    """Return the fit with another objective; one of other directions is learned anew."""
    data = replace(fit.data, objective=objective)
    learned = fit.fitted if fit.has_directions_of(objective) else data.fitted(fit.name)
    return replace(fit, data=data, fitted=learned)
