"""The mixtures and seeds of a validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mixopt.mixture import Mixture
from mixopt.trials import Trial, TrialResult, Trials


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
    """Return seeds that no trial had; the first ones are the same for any count.

    Args:
        trials: The trials.
        count: How many.
        seed: The run's.
    """
    used = set(trials.table["seed"].to_list())
    stream = np.random.default_rng([seed, 0x7A11DA7E])
    seeds: list[int] = []
    while len(seeds) < count:
        drawn = int(stream.integers(2**31))
        if drawn not in used and drawn not in seeds:
            seeds.append(drawn)
    return seeds
