"""Trials of several sizes: what a size is, and what a regressor of mixture and size is fitted on.

A regressor that has `uses_scale` is fitted on rows of weights, parameters and tokens, and its
`at(parameters, tokens)` predicts from mixtures alone. Any other takes all trials to be of one size,
which those of several sizes are not: their losses differ far more by size than by mixture.

A proxy may count its parameters anew for each trial (n-grams do), so trials are of several sizes
only where the counts fall into a few groups far apart.

Shapes: N trials, D domains, S sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixopt.errors import ConfigError, TrialsError
from mixopt.system import Array, IntArray
from mixopt.trials import Trials

COLUMNS = ("parameters", "tokens")
APART = 1.25  # sizes within this factor of each other are one


@dataclass(frozen=True)
class Size:
    """Of a model: its parameters, and the tokens that it is trained on."""

    parameters: float
    tokens: float

    def describe(self) -> str:
        """Say the size in words."""
        return f"{self.parameters:.3g} parameters and {self.tokens:.3g} tokens"

    def to_json(self) -> dict[str, float]:
        """Return the numbers as plain values."""
        return {"parameters": self.parameters, "tokens": self.tokens}

    @classmethod
    def from_json(cls, content: Mapping[str, float]) -> Size:
        """Build the size that `to_json` described."""
        return cls(content["parameters"], content["tokens"])


def uses_scale(regressor: Any) -> bool:
    """Tell whether a regressor is fitted on sizes beside weights."""
    return bool(getattr(regressor, "uses_scale", False))


def known_sizes(trials: Trials) -> Array | None:
    """Return parameters and tokens of each trial, shape (N, 2); None where one has none."""
    columns = trials.table.select(COLUMNS)
    if any(columns.null_count().row(0)):
        return None
    return columns.to_numpy().astype(np.float64)


def regressor_rows(name: str, regressor: Any, trials: Trials) -> Array:
    """Return what a regressor is fitted on: weights, or weights, parameters and tokens.

    Args:
        name: The regressor's.
        regressor: Built, fitted or not.
        trials: Finished ones.

    Returns:
        Rows, shape (N, D) or (N, D + 2).

    Raises:
        TrialsError: It needs sizes, and a trial has none.
    """
    if not uses_scale(regressor):
        return trials.weights()
    sizes_N2 = known_sizes(trials)
    if sizes_N2 is None or (sizes_N2 < 1).any():
        raise TrialsError(
            f"regressor {name!r} needs the size of each trial: give the table columns 'parameters'"
            " (without embeddings) and 'tokens'"
        )
    return np.hstack([trials.weights(), sizes_N2])


def size_groups(trials: Trials) -> IntArray:
    """Return the number of each trial's size, shape (N,); 0 where there is one, or none known."""
    sizes_N2 = known_sizes(trials)
    if sizes_N2 is None or len(np.unique(sizes_N2, axis=0)) > max(len(trials) // 2, 1):
        return np.zeros(len(trials), dtype=np.int64)
    steps = [_steps(np.log(np.maximum(column_N, 1.0))) for column_N in sizes_N2.T]
    _, group_N = np.unique(np.column_stack(steps), axis=0, return_inverse=True)
    return np.asarray(group_N.reshape(-1), dtype=np.int64)


def size_of_fit(trials: Trials, regressors: Mapping[str, Any], size: Size | None) -> Size | None:
    """Return what regressors that know of size predict at; None where none does.

    Args:
        trials: Finished ones.
        regressors: Built, by name.
        size: What was asked for; the trials' own, where they share it, when None.

    Raises:
        TrialsError: There are several sizes, and a regressor that takes them for one.
        ConfigError: A size that no regressor can predict at, or none though there are several.
    """
    blind = [name for name, regressor in regressors.items() if not uses_scale(regressor)]
    sizes = len(set(size_groups(trials).tolist()))
    if blind and sizes > 1:
        raise TrialsError(
            f"these trials are of {sizes} sizes, and regressor {blind[0]!r} takes them for one: fit"
            " them together with --regressor scaling --at-parameters P --at-tokens T, or give those"
            " of one size"
        )
    if blind and size is not None:
        raise ConfigError(
            f"--at-parameters: regressor {blind[0]!r} predicts at the trials' size alone; use"
            " --regressor scaling"
        )
    if len(blind) == len(regressors):
        return None
    return size or asked_size(trials, None, None)


def asked_size(trials: Trials, parameters: float | None, tokens: float | None) -> Size:
    """Return the size to predict at; what is not given is the trials', where they share it.

    Raises:
        ConfigError: A number below 1, or one that is missing and that the trials do not share.
    """
    sizes_N2 = known_sizes(trials)
    found = []
    for place, (name, given) in enumerate(zip(COLUMNS, (parameters, tokens), strict=True)):
        shared = set() if sizes_N2 is None else set(sizes_N2[:, place].tolist())
        if given is None and len(shared) != 1:
            raise ConfigError(
                f"--at-{name}: is missing; the trials have {len(shared) or 'no'} numbers of {name},"
                " so say at which to predict, such as 25e9"
            )
        value = shared.pop() if given is None else float(given)
        if not 1 <= value < 1e18:
            raise ConfigError(f"--at-{name} {value:g}: must be at least 1, and less than 1e18")
        found.append(value)
    return Size(*found)


def _steps(logs_N: Array) -> IntArray:
    """Number values so that those without a gap between them share a number."""
    order_N = np.argsort(logs_N, kind="stable")
    number_N = np.concatenate([[0], np.cumsum(np.diff(logs_N[order_N]) > np.log(APART))])
    steps_N = np.empty(len(logs_N), dtype=np.int64)
    steps_N[order_N] = number_N
    return steps_N
