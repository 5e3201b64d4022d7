"""Build a regressor by name; fit it, predict with it, select targets, and load it.

A regressor is a scikit-learn estimator: `fit(weights_ND, losses_NM)`, `predict(weights_ND)`.
Anything of scikit-learn's works, pipelines included; one that takes a single target is fitted
once for each. What else a regressor may have is in mixopt.fitting.capabilities.

Regressors that know of epochs, weight x tokens / inventory, have the parameters `inventory` and
`tokens`; a fit fills them in where the inventory and the trials' tokens are known. With simulated
epochs both are those of the full run, since a trial repeats its pools as often.

Shapes: N trials, D domains, M targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import MixoptError, PluginError, TrialsError
from mixopt.fitting.capabilities import (
    Abilities,
    Learner,
    Predictor,
    Regressor,
    is_estimator,
    parameters_called,
    supports,
    supports_deviations,
    supports_saving,
)

if TYPE_CHECKING:
    from mixopt.system import Array
    from mixopt.trials import Trials


def make_regressor(name: str, seed: int, repetition: Repetition | None = None) -> Regressor:
    """Build an unfitted regressor with its randomness set."""
    from mixopt.system import load_plugin

    found = load_plugin("regressor", name)
    try:
        made = _seeded(_unfitted(found), seed)
        return _many_targets(made if repetition is None else repetition.given_to(made))
    except MixoptError:
        raise
    except Exception as error:
        raise PluginError(f"regressor {name!r} cannot be built: {_said(error)}") from error


def fit_regressor(
    name: str, regressor: Learner, weights_ND: ArrayLike, losses_NM: ArrayLike
) -> Predictor:
    """Fit a regressor; whatever it raises becomes one line that names it."""
    with _named(name, len(weights_ND)):  # type: ignore[arg-type]
        fitted: Predictor = regressor.fit(weights_ND, _as_it_takes(regressor, losses_NM))
        return fitted


def cross_fit_regressor(
    name: str,
    regressor: Abilities,
    weights_ND: ArrayLike,
    losses_NM: ArrayLike,
    fold_N: ArrayLike,
) -> tuple[Any, Any]:
    """Fit a regressor that cross-validates itself; return its held-out means and deviations."""
    with _named(name, len(weights_ND)):  # type: ignore[arg-type]
        means_NM, stds_NM = regressor.cross_fit(weights_ND, losses_NM, fold_N)
        return means_NM, stds_NM


@contextmanager
def _named(name: str, rows: int) -> Iterator[None]:
    try:
        yield
    except MixoptError:
        raise
    except Exception as error:
        raise PluginError(
            f"regressor {name!r} failed on {rows} trials: {_said(error)}; leave it out of"
            " fit.regressors"
        ) from error


def select_targets(regressor: Predictor, targets: Sequence[int]) -> Predictor:
    """Return a fitted regressor for some targets; one that cannot be cut down predicts all."""
    if supports(regressor, "select"):
        return regressor.select(targets)
    return _Columns(regressor, list(targets))


def predict_with_std(regressor: Predictor, weights_ND: ArrayLike) -> tuple[Any, Any]:
    """Return predictions and their standard deviations, (N, M) each; 0 where it has none."""
    rows = len(weights_ND)  # type: ignore[arg-type]
    if not supports_deviations(regressor):
        means_NM = np.asarray(regressor.predict(weights_ND), dtype=np.float64).reshape(rows, -1)
        return means_NM, np.zeros_like(means_NM)
    answer = regressor.predict(weights_ND, return_std=True)
    means_NM, stds_NM = (np.asarray(part, dtype=np.float64).reshape(rows, -1) for part in answer)
    return means_NM, stds_NM


def read_regressor(name: str, path: Path, like: Regressor) -> Predictor:
    """Read a fitted regressor from the folder that its `save` wrote."""
    if not supports_saving(like):
        raise PluginError(f"{path}: regressor {name!r} cannot read files of mixopt; fit again")
    try:
        found = type(like).load(path)
    except MixoptError:
        raise
    except Exception as error:
        raise PluginError(f"{path}: cannot be read: {_said(error)}; fit again") from error
    for field, value in like.get_params().items() if supports(like, "get_params") else ():
        own = found.get_params().get(field) if supports(found, "get_params") else value
        if not _is_same(own, value):
            raise PluginError(f"{path}: {field}: is {own!r} there and {value!r} here; fit again")
    return found


def check_predicts(name: str, regressor: Predictor, rows_ND: Array, targets: int) -> None:
    """Check that a regressor that was read predicts."""
    try:
        losses_NM, stds_NM = predict_with_std(regressor, rows_ND)
    except Exception as error:
        raise PluginError(f"{name}: the saved fit cannot predict: {_said(error)}") from error
    shape = (len(rows_ND), targets)
    if losses_NM.shape != shape or stds_NM.shape != shape:
        raise PluginError(f"{name}: the saved fit predicts {losses_NM.shape[1]} losses: {targets}")
    if not (np.isfinite(losses_NM).all() and np.isfinite(stds_NM).all()):
        raise PluginError(f"{name}: the saved fit predicts losses that are not finite")


def _is_same(left: Any, right: Any) -> bool:
    plain = [value.tolist() if isinstance(value, np.ndarray) else value for value in (left, right)]
    lists = [list(value) if isinstance(value, tuple) else value for value in plain]
    return bool(lists[0] == lists[1])


class _Columns:
    """A fitted regressor of which some columns are kept."""

    def __init__(self, regressor: Predictor, targets: list[int]) -> None:
        self._regressor, self._targets = regressor, targets
        if supports(regressor, "gradient"):
            self.gradient = lambda weights_D: regressor.gradient(weights_D)[targets]

    def predict(self, weights_ND: ArrayLike) -> Any:
        predicted = np.asarray(self._regressor.predict(weights_ND))
        return predicted.reshape(len(predicted), -1)[:, self._targets]


def _unfitted(found: Any) -> Any:
    if not is_estimator(found):
        return found()
    from sklearn.base import clone

    return clone(found)


def _seeded(regressor: Any, seed: int) -> Any:
    names = parameters_called(regressor, "random_state")
    if not names or not supports(regressor, "get_params"):
        return regressor
    return regressor.set_params(**dict.fromkeys(names, seed))


def _many_targets(regressor: Regressor) -> Regressor:
    from sklearn.base import BaseEstimator
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils import get_tags

    if not isinstance(regressor, BaseEstimator) or get_tags(regressor).target_tags.multi_output:
        return regressor
    several: Regressor = MultiOutputRegressor(regressor)
    return several


def _as_it_takes(regressor: Learner, losses_NM: ArrayLike) -> ArrayLike:
    """Return a single target as a vector where scikit-learn would warn of a column."""
    from sklearn.multioutput import MultiOutputRegressor

    losses = np.asarray(losses_NM)
    one = losses.ndim == 2 and losses.shape[1] == 1
    own = type(regressor).__module__.partition(".")[0] == "sklearn"
    return (
        losses[:, 0] if one and own and not isinstance(regressor, MultiOutputRegressor) else losses
    )


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


OFTEN = 2.0  # epochs up to here are nearly as good as fresh text
SHARE = 0.1  # of the trials, that must repeat a domain more often for a law of it to be learned
ONE_LENGTH = 1.01  # rounding to whole steps moves the tokens of a trial by less


@dataclass(frozen=True)
class Repetition:
    """What epochs are made from.

    Attributes:
        inventory: Distinct tokens of each domain, > 0, in the order of the trials' domains.
        tokens: That each trial is trained on, > 0.
    """

    inventory: tuple[float, ...]
    tokens: float

    @classmethod
    def of_trials(cls, trials: Trials, inventory: Mapping[str, float]) -> Repetition:
        """Take the tokens from a table of trials."""
        tokens = trials.table["tokens"].to_list()
        if None in tokens or min(tokens) < 1:
            raise TrialsError(
                "--inventory: epochs need the tokens of each trial too: give the table a column"
                " 'tokens'"
            )
        if max(tokens) > ONE_LENGTH * min(tokens):
            raise TrialsError(
                f"--inventory: the trials are of {min(tokens)} to {max(tokens)} tokens, but a law "
                "of epochs needs a single length: give trials of one length"
            )
        return cls(tuple(float(inventory[name]) for name in trials.domains), float(tokens[0]))

    def epochs(self, weights_ND: ArrayLike) -> Any:
        """Return how often each trial goes through each domain, shape (N, D)."""
        return np.asarray(weights_ND) * self.tokens / np.array(self.inventory)

    def is_learnable(self, weights_ND: ArrayLike) -> bool:
        """Tell whether enough trials repeat a domain more often than costs nothing."""
        return bool((self.epochs(weights_ND).max(axis=1) > OFTEN).mean() >= SHARE)

    def given_to(self, regressor: Regressor) -> Regressor:
        """Fill in a regressor's `inventory` and `tokens`, unless it has its own."""
        if not supports(regressor, "get_params"):
            return regressor
        facts: Mapping[str, Any] = {"inventory": list(self.inventory), "tokens": self.tokens}
        wanted = {
            parameter: value
            for name, value in facts.items()
            for parameter, own in parameters_called(regressor, name).items()
            if own is None
        }
        return regressor.set_params(**wanted) if wanted else regressor

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return {"inventory": list(self.inventory), "tokens": self.tokens}
