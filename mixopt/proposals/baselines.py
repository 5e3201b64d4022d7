"""Baselines: the mixtures that people use without a fit.

`unimax` gives every domain the same share of the full run's tokens, up to a maximum number of
epochs (UniMax, Chung et al., 2023); `control` is the base mixture of microanneals.

Shapes: D domains.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixopt.config import best_place
from mixopt.errors import TrialsError
from mixopt.mixture import Mixture, Phases
from mixopt.objective import Objective
from mixopt.trials import Trials

PASSES = 4.0  # maximum epochs of unimax without constraints.max_epochs


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
        return self.by_phase(Mixture.natural(self.inventory))

    def by_phase(self, mixture: Mixture) -> Mixture:
        """Return a mixture of domains as a mixture of cells if the run has phases."""
        return mixture if self.phases is None else self.phases.tied(mixture)


def baseline_mixture(
    name: str,
    weights: Mapping[str, float] | None,
    full: FullRun,
    trials: Trials,
    objective: Objective,
) -> Mixture:
    """Return the mixture of a baseline; `weights` are those of a user's own."""
    mixture = known_baseline(name, weights, full)
    if mixture is not None:
        return mixture
    if name == "control":
        return _control(trials).over(full.natural.domains)
    return best_trial(trials, objective, best_place(name) or 1)[1].over(full.natural.domains)


def known_baseline(name: str, weights: Mapping[str, float] | None, full: FullRun) -> Mixture | None:
    """Return the mixture of a baseline; None if it depends on the trials."""
    natural = Mixture.natural(full.inventory)
    if weights is not None:
        return full.by_phase(Mixture(weights).over(natural.domains))
    mixtures = {"natural": natural, "uniform": Mixture.uniform(natural.domains)}
    mixture = unimax(full) if name == "unimax" else mixtures.get(name)
    return None if mixture is None else full.by_phase(mixture)


def _control(trials: Trials) -> Mixture:
    """Return the base mixture of microanneals, the mixture of their controls."""
    roles = trials.table["role"].to_list()
    if "control" not in roles:
        raise TrialsError("validate.baselines: control: no trial is a control of microanneals")
    return Mixture.from_array(trials.domains, trials.weights()[roles.index("control")])


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


def unimax(full: FullRun) -> Mixture:
    """Return equal shares, capped at the maximum epochs.

    If all domains together are smaller than the capped run, each gets its natural share.
    """
    domains = tuple(full.inventory)
    if full.target_tokens is None:
        return Mixture.uniform(domains)
    passes = PASSES if full.max_epochs is None else full.max_epochs
    max_D = passes * np.array([float(full.inventory[name]) for name in domains])
    remaining, tokens_D = float(full.target_tokens), np.zeros(len(domains))
    order = np.argsort(max_D, kind="stable")
    for place, domain in enumerate(order):
        tokens_D[domain] = min(remaining / (len(order) - place), max_D[domain])
        remaining -= tokens_D[domain]
    return Mixture.from_array(domains, tokens_D / tokens_D.sum())
