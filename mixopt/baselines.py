"""Baselines: the mixtures that people use without a fit.

A baseline that needs no trials is a function of the full run, named in `BASELINES`: experiments
accept the name, validation trains the mixture, and reports show it. UniMax (Chung et al., 2023)
gives every domain the same share of the full run's tokens, up to a maximum number of epochs.

Baselines that are looked up among trials, `best_trial` and `control`, are made in
mixopt.proposals.

Shapes: D domains.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mixopt.mixture import Mixture, Phases

BEST_TRIAL = "best_trial"
CONTROL = "control"  # the base mixture of microanneals, which their controls train on
MAX_BEST = 9  # best trials that may be baselines
UNIMAX_EPOCHS = 4.0  # maximum epochs of unimax without constraints.max_epochs


@dataclass(frozen=True)
class FullRun:
    """The full run that a mixture is for.

    Attributes:
        inventory: Distinct tokens of each domain.
        target_tokens: Tokens of the run; None if unknown.
        max_epochs: Maximum epochs of a domain; None for no limit.
        phases: Phases of the run; baselines have the same mixture in all. None without phases.
    """

    inventory: Mapping[str, int]
    target_tokens: int | None = None
    max_epochs: float | None = None
    phases: Phases | None = None

    @property
    def natural(self) -> Mixture:
        """Each domain's share of the available tokens."""
        return self.by_phase(natural(self))

    def by_phase(self, mixture: Mixture) -> Mixture:
        """Return a mixture of domains as a mixture of cells if the run has phases."""
        return mixture if self.phases is None else self.phases.tied(mixture)


def natural(full: FullRun) -> Mixture:
    """Return each domain's share of the available tokens."""
    return Mixture.natural(full.inventory)


def uniform(full: FullRun) -> Mixture:
    """Return equal shares."""
    return Mixture.uniform(tuple(full.inventory))


def unimax(full: FullRun) -> Mixture:
    """Return equal shares, capped at the maximum epochs.

    If all domains together are smaller than the capped run, each gets its natural share.
    """
    domains = tuple(full.inventory)
    if full.target_tokens is None:
        return Mixture.uniform(domains)
    epochs = UNIMAX_EPOCHS if full.max_epochs is None else full.max_epochs
    max_D = epochs * np.array([float(full.inventory[name]) for name in domains])
    remaining = float(full.target_tokens)
    tokens_D = np.zeros(len(domains))
    order = np.argsort(max_D, kind="stable")
    for place, domain in enumerate(order):
        tokens_D[domain] = min(remaining / (len(order) - place), max_D[domain])
        remaining -= tokens_D[domain]
    return Mixture.from_array(domains, tokens_D / tokens_D.sum())


# A baseline that needs no trials is added here.
BASELINES: dict[str, Callable[[FullRun], Mixture]] = {
    "natural": natural,
    "uniform": uniform,
    "unimax": unimax,
}


def baseline_names() -> tuple[str, ...]:
    """Return the names of all built-in baselines, without `best_trial_2` and further places."""
    return (*BASELINES, BEST_TRIAL, CONTROL)


def best_place(name: str) -> int | None:
    """Return 2 for the baseline `best_trial_2`, the second best trial; None for another name."""
    place = name.removeprefix(f"{BEST_TRIAL}_")
    is_place = place != name and place.isdecimal() and 1 < int(place) <= MAX_BEST
    return int(place) if is_place else None


def is_built_in(name: str) -> bool:
    """Return whether a baseline is built in, not a mixture of the user's own."""
    return name in baseline_names() or best_place(name) is not None


def baseline_without_trials(
    name: str, weights: Mapping[str, float] | None, full: FullRun
) -> Mixture | None:
    """Return the mixture of a baseline; None if it depends on the trials.

    Args:
        name: Name of the baseline.
        weights: Weights of a user's own; None for a built-in baseline.
        full: The run that the mixture is for.
    """
    if weights is not None:
        return full.by_phase(Mixture(weights).over(tuple(full.inventory)))
    if name not in BASELINES:
        return None
    return full.by_phase(BASELINES[name](full))
