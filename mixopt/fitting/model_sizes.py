"""Trials at several model sizes, and the data of regressors of mixture and size.

A regressor that supports sizes (mixopt.fitting.capabilities) is fitted on rows of weights,
parameters and tokens, and its `at(parameters, tokens)` predicts from mixtures alone. Any other
takes all trials to be of one size, which those of several sizes are not: their losses differ far
more by size than by mixture.

A proxy may count its parameters again for each trial (n-grams do), so trials are of several sizes
only where the counts fall into a few groups far apart.

Shapes: N trials, D domains, S sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import ConfigError, TrialsError
from mixopt.fitting.capabilities import Abilities, Predictor, supports_sizes
from mixopt.system import Array, BoolArray, IntArray
from mixopt.trials import Trials, listed

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
    """The sizes of some trials."""

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

    def beyond(self, size: ModelSize, among_N: BoolArray | None = None) -> float:
        """Return how far a size is beyond the nearest trial: logarithms of both factors, added."""
        assert self.known_N2 is not None
        known_N2 = self.known_N2 if among_N is None else self.known_N2[among_N]
        asked_2 = np.array([size.parameters, size.tokens])
        return float(np.maximum(np.log(asked_2 / known_N2), 0.0).sum(axis=1).min())

    def largest(self) -> tuple[ModelSize, BoolArray]:
        """Return the size of the most parameters times tokens, and which trials are of it."""
        assert self.known_N2 is not None
        row = int(np.argmax(np.log(self.known_N2).sum(axis=1)))
        return ModelSize(*self.known_N2[row].tolist()), self.group_N == self.group_N[row]

    def shared(self, parameters: float | None, tokens: float | None) -> ModelSize:
        """Return the size to predict at; what is not given is the trials', where they share it."""
        found = []
        for place, (name, given) in enumerate(zip(COLUMNS, (parameters, tokens), strict=True)):
            own = set() if self.known_N2 is None else set(self.known_N2[:, place].tolist())
            if given is None and len(own) != 1:
                raise ConfigError(
                    f"--at {name}: is missing; the trials have {len(own) or 'no'} numbers of "
                    f"{name}, so give the one to predict at, such as 25e9"
                )
            value = own.pop() if given is None else float(given)
            if not 1 <= value < 1e18:
                raise ConfigError(f"--at {name}={value:g}: must be at least 1, and less than 1e18")
            found.append(value)
        return ModelSize(*found)


@dataclass(frozen=True, eq=False)
class AtSize:
    """An unfitted regressor of mixture and size, whose fit is wanted at one size."""

    regressor: Abilities
    size: ModelSize

    def fit(self, rows: ArrayLike, losses_NM: ArrayLike) -> Predictor:
        """Fit to weights, parameters and tokens; return a predictor from mixtures alone."""
        fitted: Abilities = self.regressor.fit(rows, losses_NM)
        return fitted.at(**self.size.to_json())


def regressor_rows(name: str, regressor: Predictor, weights_ND: Array, sizes: TrialSizes) -> Array:
    """Return what a regressor is fitted on: weights, or weights, parameters and tokens."""
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
    """Return what regressors that know of size predict at; None where none does."""
    blind = [name for name, regressor in regressors.items() if not supports_sizes(regressor)]
    if blind and sizes.count > 1:
        raise TrialsError(
            f"these trials are of {sizes.count} sizes, but regressor {blind[0]!r} treats them as "
            "one: fit them together with --regressor scaling --at parameters=P,tokens=T, or "
            "give those of one size"
        )
    if blind and size is not None:
        raise ConfigError(
            f"--at: regressor {blind[0]!r} predicts only at the trials' size; use "
            "--regressor scaling"
        )
    if len(blind) == len(regressors):
        return None
    at = size or sizes.shared(None, None)
    _check_told(sizes, at)
    return at


def check_finished(trials: Trials) -> None:
    """Check that no trial is a checkpoint of another: less trained, and the same otherwise."""
    table = trials.table.select("trial", "mixture", "seed", *COLUMNS)
    longest: dict[tuple[str, int | None, int | None], int] = {}
    for _, *run, tokens in table.iter_rows():
        longest[tuple(run)] = max(longest.get(tuple(run), 0), tokens or 0)
    early = [n for n, *run, tokens in table.iter_rows() if (tokens or 0) < longest[tuple(run)]]
    if early:
        raise TrialsError(
            f"trials: {listed(early)} ({len(early)} of {len(trials)}) have the mixture, seed and"
            " parameters of a longer run: a loss in the middle of a schedule is not that of a"
            " finished run. Keep the last row of each run, or give the table a column 'schedule',"
            " the share of its own schedule that each row has run (1 is a finished run)"
        )


def _check_told(sizes: TrialSizes, size: ModelSize) -> None:
    """Check that trials tell how losses change with what differs from theirs."""
    if sizes.known_N2 is None:
        return
    asked = (size.parameters, size.tokens)
    for name, value, column_N in zip(COLUMNS, asked, sizes.known_N2.T, strict=True):
        least, most = float(column_N.min()), float(column_N.max())
        same = most <= APART * least
        if same and not least / APART <= value <= most * APART:
            raise ConfigError(
                f"--at {name}={value:g}: all trials have {most:g} {name}, so another value cannot "
                f"be predicted: ask for {most:g}, or add trials that differ in {name}"
            )


def asked_size(trials: Trials, parameters: float | None, tokens: float | None) -> ModelSize:
    """Return the size to predict at; what is not given is the trials', where they share it."""
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
