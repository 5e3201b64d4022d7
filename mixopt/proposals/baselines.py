"""Baselines: mixtures that one would train on without a fit.

`temperature` takes natural shares to the power 1 / T and scales them, as multilingual models do (T
above 1 flattens). `unimax` gives every domain the same share of the tokens of the full run, but
none more than so many passes over its text; what a small one cannot take goes to the others
(UniMax, Chung et al., 2023). Without the length of the full run nothing is scarce: uniform.
`control` is the base of microanneals.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixopt.errors import TrialsError
from mixopt.mixture import Mixture
from mixopt.trials import best_trial

if TYPE_CHECKING:
    from mixopt.config import BaselineConfig
    from mixopt.objective import Objective
    from mixopt.trials import Trials

PASSES = 4.0  # over a domain that unimax allows where constraints.max_epochs does not say


@dataclass(frozen=True)
class FullRun:
    """What baselines need to know of the run that the mixture is for.

    Attributes:
        inventory: Distinct tokens of each domain.
        target_tokens: Length of the run; None where it is not known.
        max_epochs: Passes over a domain that are allowed; None where nothing says.
    """

    inventory: Mapping[str, int]
    target_tokens: int | None = None
    max_epochs: float | None = None


def baseline_mixture(
    baseline: BaselineConfig, full: FullRun, trials: Trials, objective: Objective
) -> Mixture:
    """Return the mixture of a baseline.

    Args:
        baseline: A known one, a temperature, or weights of somebody's own.
        full: The run that the mixture is for.
        trials: Among which the best trial is found.
        objective: By which it is the best.

    Raises:
        MixtureError: Weights that are not a mixture of the domains.
        TrialsError: The control of microanneals is asked for, and there are none.
    """
    natural = Mixture.natural(full.inventory)
    if baseline.weights is not None:
        return Mixture(baseline.weights).over(natural.domains)
    if baseline.temperature is not None:
        return tempered(natural, baseline.temperature)
    known: dict[str, Callable[[], Mixture]] = {
        "natural": lambda: natural,
        "uniform": lambda: Mixture.uniform(natural.domains),
        "unimax": lambda: unimax(full),
        "control": lambda: _control(trials).over(natural.domains),
        "best_trial": lambda: best_trial(trials, objective)[1].over(natural.domains),
    }
    return known[baseline.name]()


def _control(trials: Trials) -> Mixture:
    """Return the base mixture of microanneals, which is that of their controls."""
    roles = trials.table["role"].to_list()
    if "control" not in roles:
        raise TrialsError("validate.baselines: control: no trial is a control of microanneals")
    return Mixture.from_array(trials.domains, trials.weights()[roles.index("control")])


def tempered(natural: Mixture, temperature: float) -> Mixture:
    """Return natural shares to the power 1 / temperature, scaled to add up to 1."""
    logs_D = np.log(np.maximum(natural.array, np.finfo(float).tiny)) / temperature
    powers_D = np.exp(logs_D - logs_D.max())
    powers_D[natural.array == 0] = 0.0
    return Mixture.from_array(natural.domains, powers_D / powers_D.sum())


def unimax(full: FullRun) -> Mixture:
    """Return equal shares, but none of more passes than the run allows.

    Where all domains together have less than the run takes, each gets its natural share.
    """
    domains = tuple(full.inventory)
    if full.target_tokens is None:
        return Mixture.uniform(domains)
    passes = PASSES if full.max_epochs is None else full.max_epochs
    most_D = passes * np.array([float(full.inventory[name]) for name in domains])
    left, given_D = float(full.target_tokens), np.zeros(len(domains))
    order = np.argsort(most_D, kind="stable")
    for place, domain in enumerate(order):
        given_D[domain] = min(left / (len(order) - place), most_D[domain])
        left -= given_D[domain]
    return Mixture.from_array(domains, given_D / given_D.sum())
