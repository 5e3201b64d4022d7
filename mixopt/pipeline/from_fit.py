"""Another question to the same fit: a target, a length, constraints, or a Pareto front.

What is not asked for is as the run's configuration has it, where the directory is a run's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixopt.config import (
    ConstraintsConfig,
    ProposeConfig,
    RiskConfig,
    read_inventory,
    stated_tokens,
)
from mixopt.corpus import Corpus, tokens_per_byte
from mixopt.errors import RunError
from mixopt.fitting import ObjectiveLike
from mixopt.mixture import Mixture
from mixopt.pipeline.fit_folder import load_fit
from mixopt.pipeline.mixed_parts import with_parts
from mixopt.proposals import Forecast, Front, Proposal, Question
from mixopt.run_directory import collapsed_trials, load_run


@dataclass(frozen=True)
class Asked:
    """What a proposal is asked for; what is None is as the run has it.

    Attributes:
        tokens: Length of the full run, for epochs and `max_epochs`.
        constraints: A YAML file of constraints.
        inventory: A YAML file of distinct tokens by domain, in place of the run's.
        risk: How much being unsure counts.
    """

    tokens: int | None = None
    constraints: Path | None = None
    inventory: Path | None = None
    risk: RiskConfig | None = None


def propose_from(
    directory: str | Path,
    *,
    target: ObjectiveLike | None = None,
    asked: Asked | None = None,
    trust: bool = False,
) -> Proposal:
    """Propose a mixture from a fit, for another target, length or constraints than before.

    Args:
        directory: A run directory, or a folder with a fit (`load_fit`).
        target: What is minimised: an evaluation domain or a glob, several, weights by name, or
            an objective (mixopt.fitting.objective_over); the fit's own when None.
        asked: What else is asked for.
        trust: Whether the directory is trusted (`load_fit`).

    Raises:
        ConfigError: An unknown target or domain, or constraints that cannot be read.
        InfeasibleError: Constraints that no mixture meets.
        RunError: The directory is a run's without its corpus, and no inventory is asked for.
    """
    directory = Path(directory)
    found = _question(directory, asked or Asked(), trust).proposal(target)
    if not (directory / "config.yaml").exists():
        return found
    return with_parts(found, load_run(directory, trust=trust))


def predict_from(
    directory: str | Path,
    mixture: Mixture | Mapping[str, float] | str | Path,
    *,
    target: ObjectiveLike | None = None,
    asked: Asked | None = None,
    trust: bool = False,
) -> Forecast:
    """Predict what a mixture gives, with intervals, and which limits it breaks.

    Args:
        directory: A run directory, or a folder with a fit (`load_fit`).
        mixture: Weights of the fit's domains, or a file of them, such as a proposal.
        target: What is minimised (`propose_from`); the fit's own objective when None.
        asked: The length of the run, limits and inventory, where others are meant.
        trust: Whether the directory is trusted (`load_fit`).

    Raises:
        MixtureError: The weights do not add up to 1, or are of other domains than the fit.
        ConfigError: An unknown target, or constraints that cannot be read.
        InfeasibleError: Constraints that no mixture meets.
    """
    if isinstance(mixture, (str, Path)):
        mixture = Mixture.from_file(mixture)
    elif not isinstance(mixture, Mixture):
        mixture = Mixture(mixture)
    return _question(Path(directory), asked or Asked(), trust).forecast(mixture, target)


def propose_front_from(
    directory: str | Path,
    targets: Sequence[str],
    *,
    points: int = 9,
    asked: Asked | None = None,
    trust: bool = False,
) -> Front:
    """Propose mixtures along the Pareto front of some targets.

    Args:
        directory: A run directory, or a folder with a fit (`load_fit`).
        targets: Evaluation domains, two or more.
        points: How many points for two targets; about as many for more.
        asked: What else is asked for.
        trust: Whether the directory is trusted (`load_fit`).

    Raises:
        ConfigError: Fewer than two targets, an unknown one, or constraints that cannot be read.
        InfeasibleError: Constraints that no mixture meets.
    """
    return _question(Path(directory), asked or Asked(), trust).front(targets, points)


def _question(directory: Path, asked: Asked, trust: bool) -> Question:
    fit = load_fit(directory, trust=trust)
    limits, search, seed, base = ConstraintsConfig(), ProposeConfig(), 0, None
    thresholds: dict[str, float] = {}
    if (directory / "config.yaml").exists():
        run = load_run(directory, trust=trust)
        config, base = run.config, run.base_losses
        limits, search, seed = config.constraints, config.propose, config.seed
        thresholds = config.expert_thresholds
    return Question.of(
        fit,
        constraints=asked.constraints or limits,
        inventory=known_inventory(directory, asked.inventory, fit.domains, trust),
        tokens=asked.tokens,
        risk=asked.risk,
        search=search,
        seed=seed,
        collapsed=collapsed_trials(directory, thresholds),
        base=base,
    )


def known_inventory(
    directory: Path, asked: Path | None, domains: Sequence[str], trust: bool
) -> dict[str, int] | None:
    """Return the tokens of each domain that are asked for, or a run's, or those of a corpus."""
    path = directory / "corpus"
    corpus = Corpus.open(path, verify=False) if path.exists() else None
    if asked is not None:
        rates = None if corpus is None else tokens_per_byte(corpus)
        return read_inventory(asked, domains, tokens_per_byte=rates)
    if not (directory / "config.yaml").exists():
        return None if corpus is None else corpus.inventory
    run = load_run(directory, trust=trust)
    known = stated_tokens(run.config.corpus.domains) if corpus is None else run.inventory
    if known is None:
        raise RunError(
            f"{path}: missing, so the tokens of the domains are unknown; give --inventory FILE"
        )
    return known
