"""The inputs of a proposal from a fit: limits, inventory, length, risk; `Fit.propose`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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
from mixopt.proposals.best_mixture import propose_mixture, search_steps
from mixopt.proposals.forecast import Forecast, predict_mixture
from mixopt.proposals.pareto_front import Front, propose_front
from mixopt.proposals.proposal import Proposal
from mixopt.system import steady_progress
from mixopt.trials import settled

if TYPE_CHECKING:
    from mixopt.fitting import Fit

ConstraintsLike = Constraints | ConstraintsConfig | Mapping[str, Any] | str | Path
RiskLike = RiskConfig | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Question:
    """A fit, and the objective and limits of a proposal from it.

    Attributes:
        fit: The fit.
        constraints: What is allowed.
        natural: Each domain's share of the available tokens; uniform where nobody knows.
        inventory: Distinct tokens of each domain, where they are known.
        search: Settings of the search for the best mixture.
        seed: Of the draws.
        collapsed: Trials whose experts collapsed; None where trials have no experts.
    """

    fit: Fit
    constraints: Constraints
    natural: Mixture
    inventory: Mapping[str, int] | None
    search: ProposeConfig
    seed: int
    collapsed: Collection[str] | None

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
        """Check the arguments; see `Fit.propose`.

        Args:
            fit: The fit.
            constraints: What is allowed: checked already, the fields of `constraints:`, or a file.
            inventory: Distinct tokens by domain, or a YAML file of them.
            tokens: Length of the full run; that of `search` when None.
            risk: How much being unsure counts; as `search` has it when None.
            search: Settings of the search for the best mixture.
            seed: Of the draws.
            collapsed: Trials whose experts collapsed; None where trials have no experts.
            base: What the checkpoint loses that trials begin with; None where not measured.

        Raises:
            ConfigError: Something cannot be read, or cannot be right.
            InfeasibleError: No mixture meets the constraints.
        """
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

    def proposal(self, target: ObjectiveLike | None = None) -> Proposal:
        """Propose the best mixture.

        Args:
            target: What is minimised (`aim`); the fit's own objective when None.

        Raises:
            ConfigError: An unknown target, or what the fit cannot tell.
            InfeasibleError: No mixture is found that keeps the guardrails.
        """
        objective = self.aim(target)
        with steady_progress("propose", search_steps(self.search)) as update:
            return propose_mixture(
                self.fit,
                objective,
                self.constraints,
                self.natural,
                self.fit.trials,
                self.search,
                inventory=self.inventory,
                seed=self.seed,
                collapsed=self.collapsed,
                update=update,
            )

    def forecast(self, mixture: Mixture, target: ObjectiveLike | None = None) -> Forecast:
        """Predict the losses of a given mixture, without a search.

        Args:
            mixture: Weights of the fit's domains.
            target: What is minimised (`aim`); the fit's own objective when None.

        Raises:
            MixtureError: It is of other domains than the fit.
            ConfigError: An unknown target.
        """
        return predict_mixture(
            mixture,
            self.fit,
            self.aim(target),
            self.constraints,
            self.natural,
            inventory=self.inventory,
            target_tokens=self.search.target_tokens,
            collapsed=self.collapsed,
        )

    def aim(self, target: ObjectiveLike | None) -> Objective:
        """Return what is minimised, in the unit and the directions that the fit has.

        Args:
            target: Losses by name or glob, weights by these, or an objective; the fit's own
                when None.

        Raises:
            ConfigError: An unknown target.
        """
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

    def front(self, targets: Sequence[str], points: int = 9) -> Front:
        """Propose mixtures along the Pareto front of some targets.

        Args:
            targets: Evaluation domains, two or more.
            points: How many points for two targets; about as many for more.

        Raises:
            ConfigError: Fewer than two targets, or an unknown one.
            InfeasibleError: No mixture is found that keeps the guardrails.
        """
        with steady_progress("front", points) as update:
            return propose_front(
                self.fit,
                targets,
                self.constraints,
                self.natural,
                self.search,
                points=points,
                inventory=self.inventory,
                seed=self.seed,
                collapsed=self.collapsed,
                update=update,
            )


def _allowed(
    given: ConstraintsLike | None,
    domains: tuple[str, ...],
    inventory: dict[str, int] | None,
    tokens: int | None,
    base: Mapping[str, float] | None,
) -> Constraints:
    """Return constraints on the domains of a fit.

    Raises:
        ConfigError: `max_epochs` without an inventory, or an unknown domain.
        InfeasibleError: No mixture meets them.
    """
    if isinstance(given, Constraints):
        return given
    config = given if isinstance(given, ConstraintsConfig) else read_constraints(given or {})
    if config.max_epochs is not None and inventory is None:
        raise ConfigError(
            "constraints.max_epochs: needs the tokens of each domain; give them in a YAML file "
            "with lines such as `web: 5e9`: --inventory FILE (in Python: inventory=)"
        )
    return Constraints.from_config(
        config,
        inventory=inventory or dict.fromkeys(domains, 1),
        target_tokens=tokens,
        base=base,
    )


def _risk(given: RiskLike | None) -> RiskConfig | None:
    if given is None or isinstance(given, RiskConfig):
        return given
    return checked(RiskConfig, given, "risk")
