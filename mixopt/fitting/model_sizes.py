"""Trials of several sizes: what a size is, and what a regressor of mixture and size is fitted on.

A regressor that supports sizes (mixopt.fitting.capabilities) is fitted on rows of weights,
parameters and tokens, and its `at(parameters, tokens)` predicts from mixtures alone. Any other
takes all trials to be of one size, which those of several sizes are not: their losses differ far
more by size than by mixture.

A proxy may count its parameters anew for each trial (n-grams do), so trials are of several sizes
only where the counts fall into a few groups far apart.

Shapes: N trials, D domains, S sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import ConfigError, TrialsError
from mixopt.fitting.capabilities import Predictor, SupportsSizes, supports_sizes
from mixopt.system import Array, IntArray
from mixopt.trials import Trials

COLUMNS = ("parameters", "tokens")
APART = 1.25  # sizes within this factor of each other are one


@dataclass(frozen=True)
class ModelSize:
    """Of a model: its parameters, and the tokens that it is trained on."""

    parameters: float
    tokens: float

    def describe(self) -> str:
        """Say the size in words."""
        return f"{self.parameters:.3g} parameters and {self.tokens:.3g} tokens"

    def to_json(self) -> dict[str, float]:
        """Return the numbers as plain values."""
        return {"parameters": self.parameters, "tokens": self.tokens}


@dataclass(frozen=True, eq=False)
class TrialSizes:
    """The sizes of some trials.

    Attributes:
        known_N2: Parameters and tokens of each trial; None where a trial has none.
        group_N: Number of each trial's size; 0 where there is one, or none known.
    """

    known_N2: Array | None
    group_N: IntArray

    @classmethod
    def of(cls, trials: Trials) -> TrialSizes:
        """Read the sizes of finished trials."""
        columns = trials.table.select(COLUMNS)
        if any(columns.null_count().row(0)):
            return cls(None, np.zeros(len(trials), dtype=np.int64))
        known_N2 = columns.to_numpy().astype(np.float64)
        return cls(known_N2, _groups(known_N2))

    @property
    def count(self) -> int:
        """How many sizes there are, S."""
        return len(set(self.group_N.tolist()))

    def shared(self, parameters: float | None, tokens: float | None) -> ModelSize:
        """Return the size to predict at; what is not given is the trials', where they share it.

        Raises:
            ConfigError: A number below 1, or one that is missing and that the trials do not share.
        """
        found = []
        for place, (name, given) in enumerate(zip(COLUMNS, (parameters, tokens), strict=True)):
            own = set() if self.known_N2 is None else set(self.known_N2[:, place].tolist())
            if given is None and len(own) != 1:
                raise ConfigError(
                    f"--at-{name}: is missing; the trials have {len(own) or 'no'} numbers of"
                    f" {name}, so say at which to predict, such as 25e9"
                )
            value = own.pop() if given is None else float(given)
            if not 1 <= value < 1e18:
                raise ConfigError(f"--at-{name} {value:g}: must be at least 1, and less than 1e18")
            found.append(value)
        return ModelSize(*found)


@dataclass(frozen=True, eq=False)
class AtSize:
    """An unfitted regressor of mixture and size, of which the fit is wanted at one size.

    Attributes:
        regressor: Unfitted.
        size: Of the predictions.
    """

    regressor: SupportsSizes
    size: ModelSize

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> Predictor:
        """Fit to weights, parameters and tokens; return a predictor from mixtures alone."""
        fitted: SupportsSizes = self.regressor.fit(rows, losses_NM)
        return fitted.at(**self.size.to_json())


def regressor_rows(name: str, regressor: Predictor, weights_ND: Array, sizes: TrialSizes) -> Array:
    """Return what a regressor is fitted on: weights, or weights, parameters and tokens.

    Args:
        name: The regressor's.
        regressor: Built, fitted or not.
        weights_ND: Mixtures of the trials.
        sizes: Of the trials.

    Returns:
        Rows, shape (N, D) or (N, D + 2).

    Raises:
        TrialsError: It needs sizes, and a trial has none.
    """
    if not supports_sizes(regressor):
        return weights_ND
    if sizes.known_N2 is None or (sizes.known_N2 < 1).any():
        raise TrialsError(
            f"regressor {name!r} needs the size of each trial: give the table columns 'parameters'"
            " (without embeddings) and 'tokens'"
        )
    return np.hstack([weights_ND, sizes.known_N2])


def size_of_fit(
    sizes: TrialSizes, regressors: Mapping[str, Predictor], size: ModelSize | None
) -> ModelSize | None:
    """Return what regressors that know of size predict at; None where none does.

    Args:
        sizes: Of the trials.
        regressors: Built, by name.
        size: What was asked for; the trials' own, where they share it, when None.

    Raises:
        TrialsError: There are several sizes, and a regressor that takes them for one.
        ConfigError: A size that no regressor can predict at, or none though there are several.
    """
    blind = [name for name, regressor in regressors.items() if not supports_sizes(regressor)]
    if blind and sizes.count > 1:
        raise TrialsError(
            f"these trials are of {sizes.count} sizes, and regressor {blind[0]!r} takes them for"
            " one: fit them together with --regressor scaling --at-parameters P --at-tokens T, or"
            " give those of one size"
        )
    if blind and size is not None:
        raise ConfigError(
            f"--at-parameters: regressor {blind[0]!r} predicts at the trials' size alone; use"
            " --regressor scaling"
        )
    if len(blind) == len(regressors):
        return None
    return size or sizes.shared(None, None)


def asked_size(trials: Trials, parameters: float | None, tokens: float | None) -> ModelSize:
    """Return the size to predict at; what is not given is the trials', where they share it.

    Raises:
        ConfigError: A number below 1, or one that is missing and that the trials do not share.
    """
    return TrialSizes.of(trials).shared(parameters, tokens)


def _groups(sizes_N2: Array) -> IntArray:
    """Number the sizes; all are one where nearly each trial would have its own."""
    if len(np.unique(sizes_N2, axis=0)) > max(len(sizes_N2) // 2, 1):
        return np.zeros(len(sizes_N2), dtype=np.int64)
    steps = [_steps(np.log(np.maximum(column_N, 1.0))) for column_N in sizes_N2.T]
    _, group_N = np.unique(np.column_stack(steps), axis=0, return_inverse=True)
    return np.asarray(group_N.reshape(-1), dtype=np.int64)


def _steps(logs_N: Array) -> IntArray:
    """Number values so that those without a gap between them share a number."""
    order_N = np.argsort(logs_N, kind="stable")
    number_N = np.concatenate([[0], np.cumsum(np.diff(logs_N[order_N]) > np.log(APART))])
    steps_N = np.empty(len(logs_N), dtype=np.int64)
    steps_N[order_N] = number_N
    return steps_N
