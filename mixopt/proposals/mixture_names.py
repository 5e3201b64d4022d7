"""Names of the mixtures of a validation, in tables and in sentences."""

from __future__ import annotations

from collections.abc import Iterable

PROPOSAL = "proposal"


def proposal_name(number: int) -> str:
    """Return the name of a run's first, second, ... proposal: `proposal`, `proposal_2`, ..."""
    return PROPOSAL if number == 1 else f"{PROPOSAL}_{number}"


def mixture_of(trial: str) -> str:
    """Return the mixture's name in a validation run's name."""
    return trial.rpartition("-s")[0]


def is_proposal(mixture: str) -> bool:
    """Tell whether a mixture of a validation is a proposal."""
    return mixture.startswith(PROPOSAL)


def named(mixture: str) -> str:
    """Return a mixture's name as a sentence has it."""
    if is_proposal(mixture):
        number = mixture.removeprefix(f"{PROPOSAL}_")
        return "the proposal" if mixture == PROPOSAL else f"proposal {number}"
    return "the best trial" if mixture == "best_trial" else mixture.replace("_", " ")


def listed(mixtures: Iterable[str], joined: str = "and") -> str:
    """Return the names of mixtures as a sentence has them."""
    *first, last = [named(name) for name in mixtures] or [""]
    return f"{', '.join(first)} {joined} {last}" if first else last
