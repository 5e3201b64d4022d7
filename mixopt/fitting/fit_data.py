"""The data of a fit: everything taken from the table of trials, read once.

A fit asks for weights, losses, sizes and folds at every turn. They are taken from the finished
trials at the door, when it is checked that the trials can be fitted at all; what is behind the
door takes arrays.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mixopt.fitting.capabilities import Predictor, Regressor
from mixopt.fitting.cross_validation import grouped_folds
from mixopt.fitting.model_sizes import TrialSizes, regressor_rows
from mixopt.fitting.regressor import fit_regressor, make_regressor
from mixopt.fitting.repetition import Repetition
from mixopt.objective import Objective
from mixopt.system import Array, IntArray
from mixopt.trials import Trials, check_trials, settled


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
        """Take the data of a fit from a table.

        Args:
            trials: The table; rows that did not finish are left out.
            objective: What is minimised; its unit is the unit of the losses.
            folds: How many folds, >= 2.
            seed: Of the folds and of the regressors.
            repetition: For regressors that know of epochs.

        Raises:
            TrialsError: Too few mixtures, a loss that is the same in all trials, or evaluation
                domains that are not the objective's.
        """
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
        """Build the unfitted regressor of that name, the same each time.

        Raises:
            PluginError: There is no such regressor, or it cannot be built.
        """
        return make_regressor(name, self.seed, self.repetition)

    def rows(self, name: str, regressor: Predictor) -> Array:
        """Return the inputs of a regressor: weights, and sizes if it uses them.

        Raises:
            TrialsError: It needs sizes, and a trial has none.
        """
        return regressor_rows(name, regressor, self.weights_ND, self.sizes)

    def fitted(self, name: str) -> Predictor:
        """Fit the regressor of that name to all trials, the same way each time.

        Raises:
            PluginError: It cannot be found, or fails.
        """
        regressor = self.make(name)
        return fit_regressor(name, regressor, self.rows(name, regressor), self.losses_NM)
