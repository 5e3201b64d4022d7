"""What a regressor is, and how one is built by name, saved and read.

A regressor is a scikit-learn estimator: `fit(weights_ND, losses_NM)`, `predict(weights_ND)`.
Anything of scikit-learn's works, pipelines included; one that takes a single target is fitted
once for each. What else a regressor may have, and what it is used for:

- `predict(weights_ND, return_std=True)`: its own standard deviations.
- `gradient(weights_D) -> (M, D)`: lets the search use a gradient method.
- `cross_fit(weights_ND, losses_NM, fold_N)`: fit on all rows and return held-out predictions and
  standard deviations on these folds, where that is cheaper than a fit for each fold.
- `uses_scale`, and `at(parameters, tokens)`: fitted on weights, parameters and tokens, it predicts
  from mixtures alone at one size (mixopt.fitting.model_sizes).
- `inventory` and `tokens`: parameters that a fit fills in where it knows them
  (mixopt.fitting.repetition).
- `select(targets)`: a fitted copy for some targets, so that a search predicts no others.
- `tuned()`: an unfitted copy that keeps what held-out folds chose, for cheap refits.
- `save(folder)` and `load(folder)`, without pickle. One that cannot is fitted again on reading.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import MixoptError, PluginError

if TYPE_CHECKING:
    from mixopt.fitting.repetition import Repetition


class Regressor(Protocol):
    """Predicts losses from a mixture."""

    def fit(self, weights_ND: ArrayLike, losses_NM: ArrayLike) -> Any:
        """Fit, and return itself."""
        ...

    def predict(self, weights_ND: ArrayLike) -> Any:
        """Return losses, shape (N, M)."""
        ...


def make_regressor(name: str, seed: int, repetition: Repetition | None = None) -> Any:
    """Build an unfitted regressor with its randomness set.

    Args:
        name: An entry point's name, or `package.module:Name` of a class, of a function that
            returns an estimator, or of an estimator (a pipeline).
        seed: Given to every parameter called `random_state`.
        repetition: Given to the parameters `inventory` and `tokens`, where they are None.

    Raises:
        PluginError: There is no such regressor, or it cannot be built without arguments.
    """
    from mixopt.system import load_plugin

    found = load_plugin("regressor", name)
    try:
        made = _seeded(_unfitted(found), seed)
        return _many_targets(made if repetition is None else repetition.given_to(made))
    except MixoptError:
        raise
    except Exception as error:
        raise PluginError(f"regressor {name!r} cannot be built: {_said(error)}") from error


def fit_regressor(name: str, regressor: Any, weights_ND: ArrayLike, losses_NM: ArrayLike) -> Any:
    """Fit a regressor; whatever it raises becomes one line that names it.

    Raises:
        PluginError: It failed.
    """
    with _named(name, len(weights_ND)):  # type: ignore[arg-type]
        return regressor.fit(weights_ND, _as_it_takes(regressor, losses_NM))


def cross_fit_regressor(
    name: str, regressor: Any, weights_ND: ArrayLike, losses_NM: ArrayLike, fold_N: ArrayLike
) -> tuple[Any, Any]:
    """Fit a regressor that cross-validates itself; return its held-out means and deviations.

    Raises:
        PluginError: It failed.
    """
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


def select_targets(regressor: Any, targets: Sequence[int]) -> Any:
    """Return a fitted regressor for some targets; one that cannot be cut down predicts all."""
    if hasattr(regressor, "select"):
        return regressor.select(targets)
    return _Columns(regressor, list(targets))


def predict_with_std(regressor: Any, weights_ND: ArrayLike) -> tuple[Any, Any]:
    """Return predictions and their standard deviations, (N, M) each; 0 where it has none."""
    rows = len(weights_ND)  # type: ignore[arg-type]
    if "return_std" not in inspect.signature(regressor.predict).parameters:
        means_NM = np.asarray(regressor.predict(weights_ND), dtype=np.float64).reshape(rows, -1)
        return means_NM, np.zeros_like(means_NM)
    answer = regressor.predict(weights_ND, return_std=True)
    means_NM, stds_NM = (np.asarray(part, dtype=np.float64).reshape(rows, -1) for part in answer)
    return means_NM, stds_NM


def can_be_saved(regressor: Any) -> bool:
    """Tell whether a regressor writes and reads itself."""
    writes = hasattr(regressor, "save") and hasattr(type(regressor), "load")
    return writes and getattr(regressor, "can_be_saved", True)


def read_regressor(name: str, path: Path) -> Any:
    """Read a regressor from the folder that its `save` wrote."""
    from mixopt.system import load_plugin

    return load_plugin("regressor", name).load(path)


class _Columns:
    """A fitted regressor of which some columns are kept."""

    def __init__(self, regressor: Any, targets: list[int]) -> None:
        self._regressor, self._targets = regressor, targets
        if hasattr(regressor, "gradient"):
            self.gradient = lambda weights_D: regressor.gradient(weights_D)[targets]

    def predict(self, weights_ND: ArrayLike) -> Any:
        return self._regressor.predict(weights_ND)[:, self._targets]


def _unfitted(found: Any) -> Any:
    if inspect.isclass(found) or not hasattr(found, "fit"):
        return found()
    from sklearn.base import clone

    return clone(found)


def _seeded(regressor: Any, seed: int) -> Any:
    if not hasattr(regressor, "get_params"):
        return regressor
    names = [n for n in regressor.get_params() if n.rpartition("__")[2] == "random_state"]
    return regressor.set_params(**dict.fromkeys(names, seed)) if names else regressor


def _many_targets(regressor: Any) -> Any:
    from sklearn.base import BaseEstimator
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils import get_tags

    if not isinstance(regressor, BaseEstimator) or get_tags(regressor).target_tags.multi_output:
        return regressor
    return MultiOutputRegressor(regressor)


def _as_it_takes(regressor: Any, losses_NM: ArrayLike) -> ArrayLike:
    """Return a single target as a vector where scikit-learn would warn of a column."""
    from sklearn.base import BaseEstimator
    from sklearn.multioutput import MultiOutputRegressor

    losses = np.asarray(losses_NM)
    one = losses.ndim == 2 and losses.shape[1] == 1
    plain = isinstance(regressor, BaseEstimator) and not isinstance(regressor, MultiOutputRegressor)
    return losses[:, 0] if one and plain else losses


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
