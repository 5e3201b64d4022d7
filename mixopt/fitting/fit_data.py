"""The data of a fit: everything taken from the table of trials, read once.

A fit asks for weights, losses, sizes and folds at every turn. They are taken from the finished
trials at the door, when it is checked that the trials can be fitted at all; what is behind the
door takes arrays.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mixopt.config import ObjectiveConfig, checked
from mixopt.errors import ConfigError
from mixopt.fitting.capabilities import Predictor, Regressor
from mixopt.fitting.cross_validation import grouped_folds
from mixopt.fitting.model_sizes import TrialSizes, regressor_rows
from mixopt.fitting.regressor import Repetition, fit_regressor, make_regressor
from mixopt.objective import Direction, Objective, Scale, Unit
from mixopt.system import Array, IntArray, chosen
from mixopt.trials import Trials, check_trials, settled

ObjectiveLike = str | Sequence[str] | Mapping[str, float] | ObjectiveConfig | Objective


def asked_patterns(objective: ObjectiveLike | None) -> dict[str, float]:
    """Return the names and globs that are asked for, with their weights; none means all."""
    if objective is None:
        return {}
    if isinstance(objective, Objective):
        return dict(objective.weights)
    if isinstance(objective, ObjectiveConfig):
        return dict.fromkeys(objective.patterns, 1.0)
    names = [objective] if isinstance(objective, str) else objective
    if not isinstance(names, (Mapping, Sequence)) or not all(isinstance(n, str) for n in names):
        raise ConfigError(
            "objective: expected the name of a loss, several names, weights by name, or an"
            f" Objective; got {objective!r}"
        )
    if not names:
        raise ConfigError("objective: names no loss; leave it out for the mean of all")
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)


def objective_over(
    evaluation: Sequence[str],
    given: ObjectiveLike | None,
    *,
    unit: Unit,
    direction: Mapping[str, Direction] | None = None,
    scale: Scale = "none",
) -> Objective:
    """Return an objective over the available losses."""
    if isinstance(given, Objective):
        return given.over(evaluation)
    if direction is not None and not isinstance(direction, Mapping):
        raise ConfigError(
            "direction: expected lower or higher by name, such as {'accuracy': 'higher'}; got"
            f" {direction!r}"
        )
    if isinstance(given, ObjectiveConfig):
        _check_alone(direction, scale)
        content = given.model_copy(update={"unit": unit})
        return Objective.from_config(content, evaluation)
    weights = asked_patterns(given) or dict.fromkeys(evaluation, 1.0)
    plain = _content(weights, evaluation, scale)
    plain |= {"unit": unit, "direction": dict(direction or {}), "scale": scale}
    return Objective.from_config(checked(ObjectiveConfig, plain, "objective"), evaluation)


def _content(
    weights: Mapping[str, float], evaluation: Sequence[str], scale: Scale
) -> dict[str, Any]:
    """Return a target where one loss is meant, and a mean otherwise."""
    first, *others = weights
    if others or len(chosen(first, evaluation)) > 1:
        return {"mean": dict(weights)}
    if scale == "spread":
        raise ConfigError(f"scale: spread: is for a mean of targets, but {first!r} is alone")
    return {"target": first}


def _check_alone(direction: Mapping[str, Direction] | None, scale: Scale) -> None:
    if direction or scale != "none":
        raise ConfigError(
            "objective: a file or a section has its own direction and scale; leave those out"
        )


@dataclass(frozen=True, eq=False)
class FitData:
    """Finished trials, checked and as arrays, and the arguments of regressors.

    Attributes:
        trials: The finished ones.
        objective: What is minimised, with the spreads of these trials where it divides by them.
        weights_ND: Mixtures.
        losses_NM: Losses in the objective's unit.
        mixtures: Fingerprint of each trial's mixture; equal ones are replicates.
        sizes: Parameters and tokens of the trials.
        folds: How many folds are held out, one after the other.
        seed: Of the folds and of the regressors.
        repetition: For regressors that know of epochs.
    """

    trials: Trials
    objective: Objective
    weights_ND: Array
    losses_NM: Array
    mixtures: tuple[str, ...]
    sizes: TrialSizes
    folds: int
    seed: int
    repetition: Repetition | None = None

    @classmethod
    def of(
        cls,
        trials: Trials,
        objective: Objective,
        *,
        folds: int,
        seed: int,
        repetition: Repetition | None = None,
    ) -> FitData:
        """Take the data of a fit from a table."""
        done = trials.finished
        check_trials(done, objective, folds)
        return cls(
            done,
            settled(objective, done),
            done.weights(),
            done.losses(objective.unit),
            tuple(done.mixtures),
            TrialSizes.of(done),
            folds,
            seed,
            repetition,
        )

    @cached_property
    def fold_N(self) -> IntArray:
        """The fold of each trial; a mixture and its replicates share one."""
        return grouped_folds(self.mixtures, self.folds, self.seed)

    @cached_property
    def observed_N(self) -> Array:
        """The observed objective."""
        return self.objective.value(self.losses_NM)

    def make(self, name: str) -> Regressor:
        """Build the unfitted regressor of that name, the same each time."""
        return make_regressor(name, self.seed, self.repetition)

    def rows(self, name: str, regressor: Predictor) -> Array:
        """Return the inputs of a regressor: weights, and sizes if it uses them."""
        return regressor_rows(name, regressor, self.weights_ND, self.sizes)

    def fitted(self, name: str) -> Predictor:
        """Fit the regressor of that name to all trials, the same way each time."""
        regressor = self.make(name)
        return fit_regressor(name, regressor, self.rows(name, regressor), self.losses_NM)
