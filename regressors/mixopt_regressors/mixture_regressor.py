"""Base class of the regressors: checked input, fitted arrays, and files without pickle.

A subclass fits and predicts checked arrays; its fitted state is a few named arrays, so that saving,
loading and selecting targets are implemented once.

Shapes: N trials, D domains, M targets, P parameters.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, Field
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from sklearn.exceptions import NotFittedError

from mixopt.errors import PluginError, TrialsError
from mixopt.fitting import grouped_folds, row_groups
from mixopt.system import Array, IntArray, read_arrays, read_json, write_bytes, write_json

FORMAT = "mixopt-regressor/1"
LARGE = 2**12  # number of entries from which an array is saved in single precision


def plain_roots(roots_MPP: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Return the lower triangles of triangular roots, row by row."""
    rows_T, columns_T = np.tril_indices(roots_MPP.shape[-1])
    return {"roots_MT": single_if_large(roots_MPP[..., rows_T, columns_T])}


def lower_roots(roots_MPQ: NDArray[np.floating[Any]]) -> Array:
    """Return triangular roots L of R R' for any roots R, shape (M, P, P)."""
    upper_MPP = np.linalg.qr(np.swapaxes(roots_MPQ, -1, -2), mode="r")
    return np.asarray(np.swapaxes(upper_MPP, -1, -2))


def root_of(matrix_PP: NDArray[np.floating[Any]]) -> Array:
    """Return a triangular root of a positive semidefinite matrix, shape (P, P)."""
    values_P, vectors_PP = np.linalg.eigh(matrix_PP)
    return lower_roots(vectors_PP * np.sqrt(np.maximum(values_P, 0.0)))


def delta_stds(noise_M: Array, jacobian_MNP: Array, inverse_MPP: Array) -> Array:
    """Return standard deviations of new trials by the delta method, shape (N, M).

    They are the spread of the residuals times sqrt(1 + j' H^-1 j), where j is the gradient by the
    parameters and H the curvature of the fit.
    """
    leverage_MN = ((jacobian_MNP @ inverse_MPP) * jacobian_MNP).sum(axis=2)
    return np.asarray(noise_M * np.sqrt(1.0 + np.maximum(leverage_MN, 0.0)).T)


def single_if_large(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return a large array in single precision."""
    return values.astype(np.float32) if values.size > LARGE else values


def distinct_rows(rows: Array) -> tuple[Array, IntArray]:
    """Return the distinct rows in order of appearance, and the index of each row among them."""
    indices: dict[bytes, int] = {}
    index_N = [indices.setdefault(row.tobytes(), len(indices)) for row in rows]
    distinct = np.array([np.frombuffer(row) for row in indices])
    return distinct, np.array(index_N, dtype=np.int64)


class RegressorHead(BaseModel):
    """Content of regressor.json: class, parameters and shape of a fit."""

    format: str
    class_name: str = Field(alias="class")
    parameters: dict[str, Any]
    domains: int = Field(ge=1, lt=1 << 20)
    flat: bool


class MixtureRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """A scikit-learn regressor from the weights of a mixture to losses by target."""

    saved_as: ClassVar[tuple[str, ...]] = ("json", "npz")
    by_target: ClassVar[tuple[str, ...]] = ()  # fitted arrays with a leading axis of targets
    shared: ClassVar[tuple[str, ...]] = ()  # fitted arrays without
    folds: int  # of subclasses that choose something on held-out trials
    random_state: int
    _before: Self | None = None  # the fit that a tuned copy was made from

    def fit(self, weights_ND: ArrayLike, losses_NM: ArrayLike) -> Self:
        """Fit every target."""
        weights = _matrix(weights_ND, "weights")
        losses = np.asarray(losses_NM, float)
        self.n_features_in_ = weights.shape[1]
        self.flat_ = losses.ndim == 1
        if self.flat_:
            losses = losses[:, None]
        losses = _matrix(losses, "losses")
        if len(losses) != len(weights) or len(weights) < 2:
            raise TrialsError(
                f"{len(weights)} mixtures and {len(losses)} rows of losses; need as many of each,"
                " at least 2"
            )
        self._fit(weights, losses)
        return self

    def predict(self, weights_ND: ArrayLike, return_std: bool = False) -> Any:
        """Predict losses, shape (N, M); (N,) if the fit was on a vector."""
        weights = self._checked(weights_ND)
        means = self._as_fitted(self._predict(weights))
        if not return_std:
            return means
        return means, self._as_fitted(self._std(weights))

    def select(self, targets: Sequence[int]) -> Self:
        """Return a fitted copy that predicts only these targets, by position."""
        selected = self._bare_copy()
        for name, values in self._fitted_arrays(self.by_target).items():
            setattr(selected, name, values[list(targets)])
        selected.flat_ = False
        return selected

    def tuned(self) -> Self:
        """Return an unfitted copy that keeps choices made on held-out folds."""
        copy: Self = clone(self)
        copy._before = self
        return copy

    def save(self, path: Path) -> None:
        """Write parameters as JSON and fitted arrays as npz to the folder `path`."""
        content = {
            "format": FORMAT,
            "class": type(self).__name__,
            "parameters": self.get_params(),
            "domains": self.n_features_in_,
            "flat": self.flat_,
        }
        arrays = {name: getattr(self, name) for name in (*self.by_target, *self.shared)}
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        write_bytes(path / "arrays.npz", stream.getvalue())
        write_json(path / "regressor.json", content)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a fit that `save` wrote."""
        content = read_json(path / "regressor.json", RegressorHead, error=PluginError)
        if content.format != FORMAT or content.class_name != cls.__name__:
            raise PluginError(f"{path}: holds {content.class_name!r}, not {cls.__name__!r}")
        regressor = cls(**content.parameters)
        regressor.n_features_in_ = content.domains
        regressor.flat_ = content.flat
        arrays = read_arrays(path / "arrays.npz", error=PluginError)
        for name in (*cls.by_target, *cls.shared):
            setattr(regressor, name, arrays[name])
        return regressor

    @abstractmethod
    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        """Fit checked arrays; set the attributes in `by_target` and `shared`."""

    @abstractmethod
    def _predict(self, weights_ND: Array) -> Array:
        """Return losses, shape (N, M)."""

    @abstractmethod
    def _std(self, weights_ND: Array) -> Array:
        """Return standard deviations of a new trial, shape (N, M)."""

    def _fold_of(self, weights_ND: Array) -> IntArray | None:
        """Return the fold of each trial, mixtures kept whole; None for a single mixture."""
        groups = row_groups(weights_ND)
        folds = min(self.folds, len(set(groups)))
        return grouped_folds(groups, folds, self.random_state) if folds > 1 else None

    def _bare_copy(self) -> Self:
        copy: Self = clone(self)
        copy.n_features_in_ = self.n_features_in_
        copy.flat_ = self.flat_
        for name, values in self._fitted_arrays(self.shared).items():
            setattr(copy, name, values)
        return copy

    def _fitted_arrays(self, names: Sequence[str]) -> dict[str, Any]:
        """Return arrays by name; a refit lacks those that only come from held-out folds."""
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def _as_fitted(self, values_NM: Array) -> Array:
        """Return values of a fit on a vector as a vector."""
        return values_NM[:, 0] if self.flat_ else values_NM

    def _checked(self, weights_ND: ArrayLike) -> Array:
        if not hasattr(self, "n_features_in_"):
            raise NotFittedError(f"{type(self).__name__} is not fitted yet; call fit first")
        weights = _matrix(weights_ND, "weights")
        if weights.shape[1] != self.n_features_in_:
            raise TrialsError(
                f"mixtures of {weights.shape[1]} domains; the fit has {self.n_features_in_}"
            )
        return weights


class LawByTarget(MixtureRegressor):
    """A law of each target, fitted alone to its losses in standard deviations."""

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        fold_N = self._fold_of(weights_ND)
        fits = []
        for target, losses_N in enumerate(losses_NM.T):
            scale = float(losses_N.std()) or 1.0
            fits.append(self._fit_target(target, weights_ND, losses_N / scale, scale, fold_N))
        for name in self.by_target:
            setattr(self, name, np.array([fit[name] for fit in fits]))

    @abstractmethod
    def _fit_target(
        self, target: int, weights_ND: Array, losses_N: Array, scale: float, fold_N: Any
    ) -> dict[str, Any]:
        """Return the fitted values of one target by the names in `by_target`."""


def _matrix(values: ArrayLike, name: str) -> Array:
    matrix = np.asarray(values, float)
    if matrix.ndim != 2:
        raise TrialsError(f"{name} of shape {matrix.shape}; need two axes")
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise TrialsError(
            f"{name}: row {row}, column {column} is {matrix[row, column]}; drop the row"
        )
    return matrix
