"""The mixtures and seeds of a validation: proposals, and what one would train on without a fit.

`temperature` takes natural shares to the power 1 / T and scales them, as multilingual models do (T
above 1 flattens). `unimax` gives every domain the same share of the tokens of the full run, but
none more than so many passes over its text; what a small one cannot take goes to the others
(UniMax, Chung et al., 2023). `control` is the base of microanneals.

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mixopt.errors import TrialsError
from mixopt.mixture import Mixture
from mixopt.trials import Trial, TrialResult, Trials, best_trial

if TYPE_CHECKING:
    from mixopt.config import BaselineConfig
    from mixopt.objective import Objective

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
    """Return the mixture of a baseline."""
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


@dataclass(frozen=True)
class ValidationPlan:
    """The mixtures of a validation, and which seeds each is trained with.

    A mixture that is there under two names is trained once, and its results count for both.

    Attributes:
        mixtures: By name; the first name of a mixture is the one that is trained.
        seeds: All seeds that there may be; a mixture is trained with the first so many.
        wanted: Names and places of seeds, in the order in which they were asked for.
    """

    mixtures: Mapping[str, Mixture]
    seeds: Sequence[int]
    wanted: tuple[tuple[str, int], ...] = field(default=())

    def add(self, names: Mapping[str, Mixture], count: int) -> ValidationPlan:
        """Return the plan with mixtures trained with the first `count` seeds, and more of none."""
        mixtures = {**self.mixtures, **names}
        missing = [
            (name, place)
            for place in range(count)
            for name in names
            if (name, place) not in self.wanted
        ]
        return replace(self, mixtures=mixtures, wanted=(*self.wanted, *missing))

    @property
    def trials(self) -> list[Trial]:
        """The runs to train, each once."""
        return [trial for trial in self.named_trials if self._first(trial) == trial.name]

    @property
    def named_trials(self) -> list[Trial]:
        """A run for each name of a mixture and seed; some are the same run."""
        return [
            Trial(f"{name}-s{place}", self.mixtures[name], self.seeds[place], role="validation")
            for name, place in self.wanted
        ]

    def named_results(self, results: Sequence[TrialResult]) -> list[TrialResult]:
        """Return a result for each of `named_trials`."""
        by_trial = {result.trial: result for result in results}
        return [
            replace(by_trial[self._first(trial)], trial=trial.name) for trial in self.named_trials
        ]

    def _first(self, trial: Trial) -> str:
        """Return the name under which a run is trained."""
        name, _, place = trial.name.rpartition("-s")
        same = [
            other
            for other, at in self.wanted
            if at == int(place) and self.mixtures[other].fingerprint == trial.mixture.fingerprint
        ]
        return f"{same[0] if same else name}-s{place}"


def fresh_seeds(trials: Trials, count: int, seed: int) -> list[int]:
    """Return seeds that no trial had; the first ones are the same for any count."""
    used = set(trials.table["seed"].to_list())
    stream = np.random.default_rng([seed, 0x7A11DA7E])
    seeds: list[int] = []
    while len(seeds) < count:
        drawn = int(stream.integers(2**31))
        if drawn not in used and drawn not in seeds:
            seeds.append(drawn)
    return seeds
