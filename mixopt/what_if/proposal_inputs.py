"""What a proposal is asked with: a fit, limits, inventory and length; changed one by one.

A widget has these as fields. They are kept as the user states them (`max_epochs: 4`, not the caps
that follow from it), so that one field can be changed and the others stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mixopt.config import (
    ConstraintsConfig,
    ProposeConfig,
    checked,
    read_constraints,
    read_inventory,
    token_count,
)

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.proposals import Question
    from mixopt.run_directory import Run

ConstraintsGiven = ConstraintsConfig | Mapping[str, Any] | str | Path


@dataclass(frozen=True, eq=False)
class ProposalInputs:
    """A fit, and what its proposals are asked with.

    Attributes:
        fit: The fit.
        limits: Constraints, as stated.
        inventory: Distinct tokens of each domain, where they are known.
        search: Settings of the search, the length of the full run among them.
        seed: Of the draws.
        collapsed: Trials whose experts collapsed; None where trials have no experts.
        target: A loss that is minimised alone; the fit's own objective when None.
        base: What the checkpoint loses that trials begin with; None where not measured.
    """

    fit: Fit
    limits: ConstraintsConfig
    inventory: Mapping[str, int] | None
    search: ProposeConfig
    seed: int = 0
    collapsed: Collection[str] | None = None
    target: str | None = None
    base: Mapping[str, float] | None = None

    @classmethod
    def of_run(cls, run: Run) -> Self:
        """Take all as a run has it."""
        config, inventory = run.config, run.inventory
        limits, search = config.constraints, config.propose
        return cls(
            run.fit,
            limits,
            inventory,
            search,
            config.seed,
            run.collapsed,
            base=run.base_losses,
        )

    @classmethod
    def of_fit(cls, fit: Fit) -> Self:
        """Take a fit alone: no limits, and nothing is known of the domains' tokens."""
        return cls(fit, ConstraintsConfig(), None, ProposeConfig())

    def given(
        self,
        *,
        constraints: ConstraintsGiven | None = None,
        inventory: Mapping[str, float] | str | Path | None = None,
        tokens: float | str | None = None,
    ) -> Self:
        """Return the same with what is given in place of what was there.

        Args:
            constraints: The fields of an experiment's `constraints:`, or a YAML file of them.
            inventory: Distinct tokens of each domain, or a YAML file of them.
            tokens: Length of the full run.

        Raises:
            ConfigError: Something cannot be read, or cannot be right.
        """
        found = self if tokens is None else self._long(token_count(tokens))
        if inventory is not None:
            found = replace(found, inventory=read_inventory(inventory, self.fit.domains))
        if constraints is None:
            return found
        if not isinstance(constraints, ConstraintsConfig):
            constraints = read_constraints(constraints)
        return replace(found, limits=constraints)

    def changed(self, fields: Mapping[str, Any]) -> Self:
        """Return the same with the fields of a widget.

        Args:
            fields: `bounds`, `locked`, `max_epochs`, `tokens`, `radius` and `target`, as
                mixopt/what_if/assets/proposal_form.js has them; what is absent stays.

        Raises:
            ConfigError: A field cannot be right.
        """
        limits = self.limits.model_dump(exclude_none=True)
        limits |= {name: fields[name] for name in ("bounds", "max_epochs") if name in fields}
        limits["bounds"] = _bounds(limits["bounds"], fields.get("locked") or {})
        if "radius" in fields:
            limits["radius"] = _radius(fields["radius"])
        content = {name: one for name, one in limits.items() if one is not None}
        found = self
        if "tokens" in fields:
            found = self._long(token_count(fields["tokens"], "target tokens"))
        limited = checked(ConstraintsConfig, content, "constraints")
        return replace(found, limits=limited, target=fields.get("target", self.target))

    def without_refits(self) -> Self:
        """Return the same for a search that answers in seconds."""
        return replace(self, search=self.search.model_copy(update={"bootstrap": 0}))

    def question(self) -> Question:
        """Return the question that `Fit.propose` would ask.

        Raises:
            ConfigError: Limits that need what is not known, or are of unknown domains.
            InfeasibleError: Constraints that no mixture meets, with those in conflict.
        """
        from mixopt.proposals import Question

        return Question.of(
            self.fit,
            constraints=self.limits,
            inventory=self.inventory,
            search=self.search,
            seed=self.seed,
            collapsed=self.collapsed,
            base=self.base,
        )

    def _long(self, tokens: int | None) -> Self:
        return replace(self, search=self.search.model_copy(update={"target_tokens": tokens}))


def _bounds(
    bounds: Mapping[str, tuple[float, float]], locked: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return bounds of domains; a locked one has its share as both."""
    fixed = {name: (share, share) for name, share in locked.items()}
    return {**bounds, **fixed}


def _radius(field: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the radius as an experiment has it."""
    if field is None:
        return None
    return {"reference": field["reference"], field["kind"]: field["size"]}
