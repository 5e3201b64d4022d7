"""Ways to decide on a mixture, each a function of a known world, its trials and a seed.

Ours is the product's path; RegMix's and Olmix's are in peer_procedures.py.

Shapes: N trials, D domains, M losses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from known_worlds import KnownWorld
from peer_procedures import OlmixFit, RegMixFit

from mixopt.config import DesignConfig, FitConfig, ProposeConfig
from mixopt.fitting import Fit, Repetition, fit_trials
from mixopt.proposals import (
    Proposal,
    ProposalRequest,
    Surrogate,
    choose_batch,
    draw_candidates,
    propose_mixture,
)
from mixopt.system import Array
from mixopt.trials import MIN_WEIGHT, Trials, design_constraints, make_design

OURS, IN_ROUNDS = "mixopt", "mixopt in rounds"
UNIT = "nats_per_token"


def ours(world: KnownWorld, trials: Trials, seed: int) -> Array:
    """Propose as the product does."""
    known = repetition_of(world, trials)
    fit = fit_trials(trials, FitConfig(), world.objective, seed, repetition=known)
    return proposed(world, trials, fit, seed).mixture.array


def proposed(world: KnownWorld, trials: Trials, fit: Fit, seed: int) -> Proposal:
    """Propose from a fit; refits are left out, since they move no proposal."""
    search = ProposeConfig(target_tokens=world.tokens, bootstrap=0)
    request = ProposalRequest(
        fit, world.constraints, world.natural, world.inventory, search, seed, trials=trials
    )
    return propose_mixture(request)


def regmix_procedure(world: KnownWorld, trials: Trials, seed: int) -> Array:
    """Propose as RegMix does."""
    values_N = world.objective.value(trials.losses(UNIT))
    fit = RegMixFit.of(trials.weights(), values_N)
    return fit.proposal(world.natural.array, world.constraints.upper_D, seed=seed)


def olmix_procedure(world: KnownWorld, trials: Trials, seed: int) -> Array:
    """Propose as Olmix does; nothing in it is random."""
    columns = world.objective.columns
    fit = OlmixFit.of(trials.weights(), trials.losses(UNIT)[:, columns])
    shares_M = world.objective.pieces()[0, columns]
    return fit.proposal(world.natural.array, world.constraints.upper_D, shares_M)


def best_trial(world: KnownWorld, trials: Trials, seed: int) -> Array:
    """Return the trial with the lowest observed objective."""
    best = int(np.argmin(world.objective.value(trials.losses(UNIT))))
    return trials.weights()[best]


def natural(world: KnownWorld, trials: Trials, seed: int) -> Array:
    """Return the natural mixture."""
    return world.natural.array


def uniform(world: KnownWorld, trials: Trials, seed: int) -> Array:
    """Return the uniform mixture, within the limits."""
    count = len(world.domains)
    return world.constraints.simplex.project(np.full(count, 1.0 / count))


WAYS: dict[str, Callable[[KnownWorld, Trials, int], Array]] = {
    OURS: ours,
    "RegMix": regmix_procedure,
    "Olmix": olmix_procedure,
    "best trial": best_trial,
    "natural": natural,
    "uniform": uniform,
}


def designed(world: KnownWorld, count: int, seed: int) -> Trials:
    """Return the trials that every way learns from: random ones."""
    return world.train(world.random(count, seed), seed)


def in_rounds(world: KnownWorld, count: int, seed: int) -> Trials:
    """Return as many trials in the product's default rounds."""
    config = DesignConfig(trials=count, anchors=[], replicates=0)
    first = make_design(config, world.natural, world.constraints, seed)
    weights_ND = np.array([trial.mixture.array for trial in first])
    allowed = design_constraints(config, world.natural, world.constraints).simplex
    for number, batch in enumerate(config.planned_rounds[1:], start=1):
        trials = world.train(weights_ND, seed)
        known = repetition_of(world, trials)
        fit = fit_trials(trials, FitConfig(), world.objective, seed, repetition=known)
        surrogate = Surrogate.of(fit)
        candidates_KD = draw_candidates(
            surrogate, allowed, world.natural.array, minimum=MIN_WEIGHT, seed=seed + number
        )
        chosen = choose_batch(
            surrogate, candidates_KD, batch, taken_ND=weights_ND, seed=seed + number
        )
        weights_ND = np.vstack([weights_ND, chosen.weights_BD])
    return world.train(weights_ND, seed)


def repetition_of(world: KnownWorld, trials: Trials) -> Repetition | None:
    """Return the epochs for regressors, where domains are repeated."""
    return None if world.inventory is None else Repetition.of_trials(trials, world.inventory)


def ours_in_rounds(world: KnownWorld, count: int, seed: int) -> Array:
    """Propose from trials that ours chose in rounds."""
    return ours(world, in_rounds(world, count, seed), seed)
