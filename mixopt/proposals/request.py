"""A request for proposals: a fit, and the limits, inventory, length and risk that go with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mixopt.config import (
    ConstraintsConfig,
    ObjectiveConfig,
    ProposeConfig,
    RiskConfig,
    checked,
    read_constraints,
    read_inventory,
    token_count,
)
from mixopt.constraints import Constraints
from mixopt.errors import ConfigError
from mixopt.fitting import ObjectiveLike, objective_over
from mixopt.mixture import Mixture
from mixopt.objective import Direction, Objective
from mixopt.trials import Trials, best_trial, settled

if TYPE_CHECKING:
    from mixopt.fitting import Fit

ConstraintsLike = Constraints | ConstraintsConfig | Mapping[str, Any] | str | Path
RiskLike = RiskConfig | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class ProposalRequest:
    """A fit, and the limits and settings of proposals from it.

    Attributes:
        fit: The fit.
        constraints: What is allowed.
        natural: Each domain's share of the available tokens; uniform where nobody knows.
        inventory: Distinct tokens of each domain, where they are known.
        search: Settings of the search for the best mixture, length of the run and risk.
        seed: Of the draws.
        collapsed: Trials whose experts collapsed; None where trials have no experts.
        trials: Among which the best observed one is found; those of the fit when None.
    """

    fit: Fit
    constraints: Constraints
    natural: Mixture
    inventory: Mapping[str, int] | None = None
    search: ProposeConfig = field(default_factory=ProposeConfig)
    seed: int = 0
    collapsed: Collection[str] | None = None
    trials: Trials | None = None

    @classmethod
    def of(
        cls,
        fit: Fit,
        *,
        constraints: ConstraintsLike | None = None,
        inventory: Mapping[str, float] | str | Path | None = None,
        tokens: float | str | None = None,
        risk: RiskLike | None = None,
        search: ProposeConfig | None = None,
        seed: int = 0,
        collapsed: Collection[str] | None = None,
        base: Mapping[str, float] | None = None,
    ) -> Self:
        """Check the arguments; see `Fit.propose`."""
        search = search or ProposeConfig()
        given = {"target_tokens": token_count(tokens), "risk": _risk(risk)}
        search = search.model_copy(update={n: one for n, one in given.items() if one is not None})
        known = None if inventory is None else read_inventory(inventory, fit.domains)
        return cls(
            fit,
            _allowed(constraints, fit.domains, known, search.target_tokens, base),
            Mixture.natural(known) if known else Mixture.uniform(fit.domains),
            known,
            search,
            seed,
            collapsed,
        )

    def resolve_objective(self, target: ObjectiveLike | None) -> Objective:
        """Return what is minimised, in the unit and the directions that the fit has."""
        own = self.fit.objective
        if target is None:
            return own
        higher: dict[str, Direction] = dict.fromkeys(own.higher, "higher")
        if isinstance(target, ObjectiveConfig):
            target = target.model_copy(update={"direction": {**higher, **target.direction}})
            asked = objective_over(self.fit.targets, target, unit=own.unit)
        else:
            asked = objective_over(self.fit.targets, target, unit=own.unit, direction=higher)
        return settled(asked, self.fit.trials)

    def best_trial(self, objective: Objective) -> tuple[str, Mixture]:
        """Return the name and the mixture of the trial that was observed best."""
        name, mixture = best_trial(self.trials or self.fit.trials, objective)
        return name, mixture.over(self.fit.domains)

    def compared(self, objective: Objective) -> dict[str, Mixture]:
        """Return what a proposal is compared with, by name."""
        return {
            "natural": self.natural.over(self.fit.domains),
            "uniform": Mixture.uniform(self.fit.domains),
            "best_trial": self.best_trial(objective)[1],
        }


def _allowed(
    given: ConstraintsLike | None,
    domains: tuple[str, ...],
    inventory: dict[str, int] | None,
    tokens: int | None,
    base: Mapping[str, float] | None,
) -> Constraints:
    if isinstance(given, Constraints):
        return given
    config = given if isinstance(given, ConstraintsConfig) else read_constraints(given or {})
    if config.max_epochs is not None and inventory is None:
        raise ConfigError(
            "constraints.max_epochs: needs the tokens of each domain; give them in a YAML file "
            "with lines such as `web: 5e9`: --inventory FILE (in Python: inventory=)"
        )
    known = inventory or dict.fromkeys(domains, 1)
    return Constraints.from_config(config, inventory=known, target_tokens=tokens, base=base)


def _risk(given: RiskLike | None) -> RiskConfig | None:
    if given is None or isinstance(given, RiskConfig):
        return given
    return checked(RiskConfig, given, "risk")
