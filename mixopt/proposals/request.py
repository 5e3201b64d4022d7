"""A request for proposals: fit, objective, constraints, and length of the run.

Shapes: N mixtures, D domains, K trials.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mixopt.config import (
    ConstraintsConfig,
    FitConfig,
    ObjectiveConfig,
    ProposeConfig,
    read_constraints,
    read_inventory,
    token_count,
)
from mixopt.constraints import Constraints, Guardrails
from mixopt.errors import ConfigError
from mixopt.fitting import ObjectiveLike, fit_trials, noise_of, objective_over
from mixopt.mixture import Mixture, Phases, pairwise_total_variation
from mixopt.objective import Direction, Objective
from mixopt.proposals.baselines import best_trial
from mixopt.system import Array
from mixopt.trials import Trials, settled

if TYPE_CHECKING:
    from mixopt.fitting import Fit

EXPERTS = "constraints.guardrails.experts"
NEAR = 1e-3  # total variation within which collapsed trials count as an active constraint


@dataclass(frozen=True, eq=False)
class Avoided:
    """Excludes mixtures whose nearest trial has collapsed experts."""

    collapsed_KD: Array
    intact_KD: Array

    @classmethod
    def of(cls, trials: Trials, collapsed: Collection[str] | None) -> Avoided:
        """Split the finished trials by whether their experts collapsed."""
        if collapsed is None:
            raise ConfigError(
                f"{EXPERTS}: the trials have no experts; leave it out, or use a proxy that has "
                "experts (decoder with proxy.options.size: moe-tiny)"
            )
        finished = trials.finished
        marked_K = np.array([name in collapsed for name in finished.table["trial"]])
        if marked_K.all():
            raise ConfigError(
                f"{EXPERTS}: the experts of all {len(marked_K)} trials collapsed, so no mixture "
                "satisfies it; balance the router (proxy.options), or leave it out"
            )
        weights_KD = finished.weights()
        return cls(weights_KD[marked_K], weights_KD[~marked_K])

    def excess(self, weights_ND: Array) -> Array:
        """Return by how much the nearest collapsed trial is nearer than any other, shape (N,)."""
        if not len(self.collapsed_KD):
            return np.full(len(weights_ND), -1.0)
        collapsed_N = pairwise_total_variation(weights_ND, self.collapsed_KD).min(axis=1)
        intact_N = pairwise_total_variation(weights_ND, self.intact_KD).min(axis=1)
        excess_N: Array = intact_N - collapsed_N
        return excess_N


ConstraintsLike = Constraints | ConstraintsConfig | Mapping[str, Any] | str | Path


@dataclass(frozen=True, eq=False)
class ProposalRequest:
    """A fit, an objective, and the constraints and settings of proposals.

    Attributes:
        fit: The fit.
        constraints: The constraints on mixtures.
        natural: Each domain's share of the available tokens; uniform if unknown.
        inventory: Distinct tokens of each domain, if known.
        search: Settings of the search, and length of the run.
        seed: Seed of random draws.
        collapsed: Trials whose experts collapsed; None if trials have no experts.
        trials: Trials among which the best observed one is selected; None: those of the fit.
        goal: The objective; None: the fit's own.
        phases: Phases of the run, if the fit is one of their cells; else None.
    """

    fit: Fit
    constraints: Constraints
    natural: Mixture
    inventory: Mapping[str, int] | None = None
    search: ProposeConfig = field(default_factory=ProposeConfig)
    seed: int = 0
    collapsed: Collection[str] | None = None
    trials: Trials | None = None
    goal: Objective | None = None
    phases: Phases | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "constraints", with_noise(self.constraints, self.fit))

    @classmethod
    def of(
        cls,
        fit: Fit,
        target: ObjectiveLike | None = None,
        *,
        constraints: ConstraintsLike | None = None,
        inventory: Mapping[str, float] | str | Path | None = None,
        tokens: float | str | None = None,
        search: ProposeConfig | None = None,
        seed: int = 0,
        collapsed: Collection[str] | None = None,
        base: Mapping[str, float] | None = None,
        phases: Phases | None = None,
    ) -> Self:
        """Build a request from the arguments of `Fit.propose`."""
        search = search or ProposeConfig()
        if tokens is not None:
            search = search.model_copy(update={"target_tokens": token_count(tokens)})
        domains = fit.domains if phases is None else phases.names(fit.domains)
        sizes = None if inventory is None else read_inventory(inventory, domains)
        natural = Mixture.natural(sizes) if sizes else Mixture.uniform(domains)
        request = cls(
            fit,
            constraints=_allowed(constraints, domains, sizes, search.target_tokens, base, phases),
            natural=natural if phases is None else phases.tied(natural),
            inventory=sizes,
            search=search,
            seed=seed,
            collapsed=collapsed,
            phases=phases,
        )
        return request.aimed_at(target)

    def aimed_at(self, target: ObjectiveLike | None) -> Self:
        """Return the request for another target, with the unit of the fit.

        A fit learns in which direction each metric is better: for a target that states other
        directions than the fit's, the regressor is fitted again.
        """
        if target is None:
            return self
        current = self.fit.objective
        higher: dict[str, Direction] | None = dict.fromkeys(current.higher, "higher")
        if isinstance(target, ObjectiveConfig):
            directions = {**(higher or {}), **target.direction}
            target = target.model_copy(update={"direction": directions})
            higher = None
        objective = objective_over(self.fit.targets, target, unit=current.unit, direction=higher)
        goal = settled(objective, self.fit.trials)
        if self.fit.has_directions_of(goal):
            return replace(self, goal=goal)
        return replace(self, fit=_fitted_again(self.fit, goal), goal=goal)

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return self.fit.objective if self.goal is None else self.goal

    @cached_property
    def best_trial(self) -> tuple[str, Mixture]:
        """Name and mixture of the trial with the best observed objective."""
        name, mixture = best_trial(self.trials or self.fit.trials, self.objective)
        return name, mixture.over(self.fit.domains)

    @cached_property
    def compared(self) -> dict[str, Mixture]:
        """The mixtures that a proposal is compared with, by name."""
        uniform = Mixture.uniform(self.fit.domains)
        if self.phases is not None:
            uniform = self.phases.tied(Mixture.uniform(self.phases.names(self.fit.domains)))
        return {
            "natural": self.natural.over(self.fit.domains),
            "uniform": uniform,
            "best_trial": self.best_trial[1],
        }

    @property
    def needed_columns(self) -> list[int]:
        """Positions of the losses in the objective and the guardrails."""
        names = dict.fromkeys([*self.objective.measured, *self._guarded])
        return [self.objective.evaluation.index(name) for name in names]

    @property
    def _guarded(self) -> list[str]:
        rails = self.constraints.guardrails
        if rails is None:
            return []
        evaluation = self.objective.evaluation
        return [*rails.margins(evaluation), *rails.floors_of(evaluation)]

    def guards(self, objective: Objective) -> Guardrails | None:
        """Return the guardrails on the losses of an objective; None without guardrails."""
        rails = self.constraints.guardrails
        if rails is None or not self._guarded:
            return None
        return rails.on(objective, self.compared[rails.mixture].array)


def _fitted_again(fit: Fit, goal: Objective) -> Fit:
    """Fit the regressor of a fit to an objective with other directions."""
    data = fit.data
    again = fit_trials(
        data.trials,
        FitConfig(regressors=[fit.name], folds=data.folds),
        goal,
        data.seed,
        size=fit.size,
        repetition=data.repetition,
        carried=data.carried,
    )
    return replace(again, pilots=fit.pilots, inventory=fit.inventory)


def with_noise(constraints: Constraints, fit: Fit) -> Constraints:
    """Return constraints with the noise of the trials for guardrails with `noise` margins."""
    rails = constraints.guardrails
    if rails is None or not rails.has_noise or rails.noise:
        return constraints
    return replace(constraints, guardrails=replace(rails, noise=noise_of(fit).by_name))


def _allowed(
    constraints: ConstraintsLike | None,
    domains: tuple[str, ...],
    inventory: dict[str, int] | None,
    tokens: int | None,
    base: Mapping[str, float] | None,
    phases: Phases | None,
) -> Constraints:
    if isinstance(constraints, Constraints):
        return constraints
    if isinstance(constraints, ConstraintsConfig):
        config = constraints
    else:
        config = read_constraints(constraints or {})
    if config.max_epochs is not None and inventory is None:
        raise ConfigError(
            "constraints.max_epochs: needs the tokens of each domain; give them in a YAML file "
            "with lines such as `web: 5e9`: --inventory FILE (in Python: inventory=)"
        )
    sizes = inventory or dict.fromkeys(domains, 1)
    return Constraints.from_config(
        config, inventory=sizes, target_tokens=tokens, base=base, phases=phases
    )
