"""Another question to the same fit: a target, a length, constraints, or a Pareto front.

What is not asked for is as the run's configuration has it, where the directory is a run's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mixopt.config import ConstraintsConfig, ProposeConfig, RiskConfig
from mixopt.constraints import Constraints
from mixopt.fitting import Fit
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.pipeline.from_tables import load_fit
from mixopt.pipeline.proposal_input import (
    constraints_on,
    corpus_inventory,
    read_constraints,
    read_inventory,
)
from mixopt.proposals import Front, Proposal, propose_front, propose_mixture
from mixopt.run_directory import collapsed_trials, load_run
from mixopt.system import progress


@dataclass(frozen=True)
class Asked:
    """What a proposal is asked for; what is None is as the run has it.

    Attributes:
        tokens: Length of the full run, for epochs and `max_epochs`.
        constraints: A YAML file of constraints.
        inventory: A YAML file of distinct tokens by domain, in place of the corpus's.
        risk: How much being unsure counts.
    """

    tokens: int | None = None
    constraints: Path | None = None
    inventory: Path | None = None
    risk: RiskConfig | None = None


def propose_from(
    directory: str | Path, *, target: str | None = None, asked: Asked | None = None
) -> Proposal:
    """Propose a mixture from a fit, for another target, length or constraints than before.

    Args:
        directory: A run directory, or a folder that `fit_tables` made.
        target: An evaluation domain; the fit's own objective when None.
        asked: What else is asked for.

    Raises:
        ConfigError: An unknown target or domain, or constraints that cannot be read.
        InfeasibleError: Constraints that no mixture meets.
    """
    ready = _question(Path(directory), asked or Asked())
    objective = ready.fit.objective
    if target is not None:
        objective = _for_target(objective, target)
    with progress("propose", ready.search.bootstrap) as update:
        return propose_mixture(
            ready.fit,
            objective,
            ready.constraints,
            ready.natural,
            ready.fit.trials,
            ready.search,
            inventory=ready.inventory,
            seed=ready.seed,
            collapsed=collapsed_trials(Path(directory)),
            update=update,
        )


def propose_front_from(
    directory: str | Path,
    targets: Sequence[str],
    *,
    points: int = 9,
    asked: Asked | None = None,
) -> Front:
    """Propose mixtures along the Pareto front of some targets.

    Args:
        directory: A run directory, or a folder that `fit_tables` made.
        targets: Evaluation domains, two or more.
        points: How many points for two targets; about as many for more.
        asked: What else is asked for.

    Raises:
        ConfigError: Fewer than two targets, an unknown one, or constraints that cannot be read.
        InfeasibleError: Constraints that no mixture meets.
    """
    ready = _question(Path(directory), asked or Asked())
    with progress("front", points) as update:
        return propose_front(
            ready.fit,
            targets,
            ready.constraints,
            ready.natural,
            ready.search,
            points=points,
            inventory=ready.inventory,
            seed=ready.seed,
            collapsed=collapsed_trials(Path(directory)),
            update=update,
        )


@dataclass(frozen=True)
class _Question:
    """A fit, and what a proposal from it may be and is for."""

    fit: Fit
    constraints: Constraints
    natural: Mixture
    inventory: dict[str, int] | None
    search: ProposeConfig
    seed: int


def _question(directory: Path, asked: Asked) -> _Question:
    fitted, seed = load_fit(directory), 0
    limits, search = ConstraintsConfig(), ProposeConfig()
    if (directory / "config.yaml").exists():
        config_of_run = load_run(directory).config
        limits, search = config_of_run.constraints, config_of_run.propose
        seed = config_of_run.seed
    if asked.constraints is not None:
        limits = read_constraints(Path(asked.constraints))
    given = {"target_tokens": asked.tokens, "risk": asked.risk}
    search = search.model_copy(update={n: value for n, value in given.items() if value is not None})
    available = (
        read_inventory(asked.inventory, fitted.domains)
        if asked.inventory
        else corpus_inventory(directory)
    )
    natural = Mixture.natural(available) if available else Mixture.uniform(fitted.domains)
    allowed = constraints_on(limits, available, fitted.domains, search.target_tokens)
    return _Question(fitted, allowed, natural, available, search, seed)


def _for_target(objective: Objective, target: str) -> Objective:
    """Return the objective of one target, in the unit and direction that the fit has."""
    return replace(objective, kind="target", weights={target: 1.0}, scale="none", spreads=None)
