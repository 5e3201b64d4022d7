"""Several regressors as one: a weighted mean of their predictions, with weights by target.

What `ensemble` and `auto` have in common. Members are named as a configuration names them, so
that a saved fit is read by the same door. A member whose weight on a target is 0 is not asked
for it in a search.

Shapes: N trials, D domains, M targets, C members.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from mixopt.errors import PluginError
from mixopt.fitting import (
    Learner,
    Predictor,
    Regressor,
    Repetition,
    fit_regressor,
    make_regressor,
    predict_with_std,
    read_regressor,
    select_targets,
    splits,
    supports,
    supports_saving,
)
from mixopt.system import Array, IntArray, Update, check_trusted, no_progress
from mixopt_regressors.mixture_regressor import MixtureRegressor

REFIT_ROWS = 128  # above so many rows, folds keep what the fit on all rows chose


class CombinedRegressor(MixtureRegressor):
    """A weighted mean of other regressors' predictions.

    The standard deviation is the weighted mean of the members' own, and their disagreement in
    quadrature.
    """

    by_target: ClassVar[tuple[str, ...]] = ("weights_MC",)
    members_: list[Predictor | None]

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the members, as a configuration has them."""

    @property
    def gradient(self) -> Callable[[ArrayLike], Array]:
        """The slope of each loss by each weight; there is one where all members have one."""
        for name, member in self._used():
            if not supports(member, "gradient"):
                raise AttributeError(f"member {name!r} has no gradient")
        return self._gradient

    @property
    def covariance(self) -> Callable[[ArrayLike, ArrayLike], Array]:
        """The covariance of a weighted sum of the losses, where all members have one."""
        for name, member in self._used():
            if not supports(member, "covariance"):
                raise AttributeError(f"member {name!r} has no covariance")
        return self._covariance

    @property
    def plain_law(self) -> Callable[[], dict[str, Any]]:
        """The law as plain numbers; there is one where all members have one."""
        for name, member in self._used():
            if not supports(member, "plain_law"):
                raise AttributeError(f"member {name!r} has no plain law")
        return self._plain_law

    def select(self, targets: Sequence[int]) -> Self:
        """Return a fitted copy that predicts only these targets, by position."""
        kept = super().select(targets)
        kept.members_ = [
            select_targets(member, targets) if member is not None and weights.any() else None
            for member, weights in zip(self.members_, kept.weights_MC.T, strict=True)
        ]
        return kept

    def tuned(self) -> Self:
        """Return a copy to fit again that keeps the weights and what the members chose."""
        copy: Self = clone(self)
        copy.kept_ = (self.weights_MC, self.members_)
        return copy

    @property
    def can_be_saved(self) -> bool:
        """Tell whether all members write and read themselves, and are named by entry points."""
        plain = not any(":" in name for name in self.names)
        return plain and all(supports_saving(member) for _, member in self._used())

    def save(self, path: Path) -> None:
        """Write weights, and each member into a folder of its own."""
        super().save(path)
        for number, (_, member) in enumerate(self._used()):
            assert supports_saving(member)
            member.save(path / f"member-{number}")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a fit that `save` wrote."""
        regressor = super().load(path)
        regressor._check_loaded(path)
        used_C = np.asarray(regressor.weights_MC.any(axis=0))
        places = np.cumsum(used_C) - 1
        regressor.members_ = [
            read_regressor(name, path / f"member-{place}", regressor._made(name)) if used else None
            for name, used, place in zip(regressor.names, used_C, places, strict=True)
        ]
        return regressor

    def cross_fit(
        self, weights_ND: ArrayLike, losses_NM: ArrayLike, fold_N: IntArray
    ) -> tuple[Array, Array]:
        """Fit on all rows, and predict each row by members that were fitted without its fold."""
        weights, losses = np.asarray(weights_ND, float), np.asarray(losses_NM, float)
        self.n_features_in_, self.flat_ = weights.shape[1], False
        members, update = [], self.__dict__.pop("update_", no_progress)
        for number, name in enumerate(self.names):
            update(number / len(self.names), name)
            members.append(self._cross_fitted(name, weights, losses, fold_N))
        self.members_ = [fitted for fitted, _, _ in members]
        means_CNM = np.stack([means for _, means, _ in members])
        stds_CNM = np.stack([stds for _, _, stds in members])
        self.held_out_members = dict(zip(self.names, means_CNM, strict=True))
        self._choose(means_CNM, losses)
        self._drop_unused()
        means_NM, stds_NM = np.empty_like(losses), np.empty_like(losses)
        for train_N, out_N in splits(fold_N):
            weights_MC = self._weights(means_CNM[:, train_N], losses[train_N])
            means_NM[out_N], stds_NM[out_N] = _mixed(
                means_CNM[:, out_N], stds_CNM[:, out_N], weights_MC
            )
        return means_NM, stds_NM

    def watch(self, update: Update) -> None:
        """Have the next `cross_fit` report the share that is done, 0 to 1, and its member."""
        self.update_ = update

    def _check_loaded(self, path: Path) -> None:
        """Check that weights are of the members, and that no member is named by a path to code."""
        for name in self.names:
            check_trusted("regressor", name, str(path / "regressor.json"), trust=False)
        if self.weights_MC.ndim != 2 or self.weights_MC.shape[1] != len(self.names):
            raise PluginError(
                f"{path}: weights of shape {self.weights_MC.shape} for {len(self.names)} members;"
                " fit again"
            )

    @abstractmethod
    def _weights(self, means_CNM: Array, losses_NM: Array) -> Array:
        """Return the weights of the members from held-out predictions, shape (M, C)."""

    def _choose(self, means_CNM: Array, losses_NM: Array) -> None:
        """Set the weights from held-out predictions of all rows."""
        self.weights_MC = self._weights(means_CNM, losses_NM)

    def _refit(self, weights_ND: Array, losses_NM: Array) -> bool:
        """Fit as the fit that this copy is of did, keeping its choices; False if it is none."""
        if not hasattr(self, "kept_"):
            return False
        self.weights_MC, members = self.kept_
        self.members_ = [
            None if member is None else self._fitted(name, member, weights_ND, losses_NM)
            for name, member in zip(self.names, members, strict=True)
        ]
        return True

    def _fitted(
        self, name: str, before: Predictor | None, weights_ND: Array, losses_NM: Array
    ) -> Predictor:
        """Fit a member, with what an earlier fit of it chose where it can keep that."""
        regressor: Learner = self._made(name)
        if before is not None and supports(before, "tuned"):
            regressor = before.tuned()
        return fit_regressor(name, regressor, weights_ND, losses_NM)

    def _cross_fitted(
        self, name: str, weights_ND: Array, losses_NM: Array, fold_N: IntArray
    ) -> tuple[Predictor, Array, Array]:
        """Fit a member on all rows; predict each row without its fold."""
        regressor = self._made(name)
        if supports(regressor, "cross_fit"):
            means_NM, stds_NM = regressor.cross_fit(weights_ND, losses_NM, fold_N)
            return regressor, means_NM, stds_NM
        fitted = fit_regressor(name, regressor, weights_ND, losses_NM)
        means_NM, stds_NM = np.empty_like(losses_NM), np.empty_like(losses_NM)
        for train_N, out_N in splits(fold_N):
            rows, losses = weights_ND[train_N], losses_NM[train_N]
            unfitted = self._for_fold(name, fitted, len(weights_ND))
            again = fit_regressor(name, unfitted, rows, losses)
            means_NM[out_N], stds_NM[out_N] = predict_with_std(again, weights_ND[out_N])
        return fitted, means_NM, stds_NM

    def _for_fold(self, name: str, fitted: Predictor, rows: int) -> Learner:
        """Return a member to fit to a fold; with many rows it keeps what the fit on all chose."""
        if rows > REFIT_ROWS and isinstance(fitted, MixtureRegressor):
            return fitted.chosen()
        if rows > REFIT_ROWS and supports(fitted, "tuned"):
            return fitted.tuned()
        return self._made(name)

    def _made(self, name: str) -> Regressor:
        return make_regressor(name, getattr(self, "random_state", 0), self._repetition())

    def _repetition(self) -> Repetition | None:
        """Return what members that know of epochs are given."""
        return None

    def _drop_unused(self) -> None:
        used_C = np.asarray(self.weights_MC.any(axis=0))
        self.members_ = [
            member if used else None for member, used in zip(self.members_, used_C, strict=True)
        ]

    def _used(self) -> list[tuple[str, Predictor]]:
        pairs = zip(self.names, self.members_, strict=True)
        return [(name, member) for name, member in pairs if member is not None]

    def _asked(self) -> list[tuple[Predictor, Array]]:
        """Return the members that count, each with its weights, shape (M,)."""
        pairs = zip(self.members_, self.weights_MC.T, strict=True)
        return [(member, weights_M) for member, weights_M in pairs if member is not None]

    def _predict(self, weights_ND: Array) -> Array:
        parts = [weights_M * _means(member, weights_ND) for member, weights_M in self._asked()]
        return np.asarray(sum(parts), dtype=np.float64)

    def _std(self, weights_ND: Array) -> Array:
        answers = [predict_with_std(member, weights_ND) for member, _ in self._asked()]
        weights_MC = np.stack([weights_M for _, weights_M in self._asked()], axis=1)
        means_CNM, stds_CNM = (np.stack(part) for part in zip(*answers, strict=True))
        return _mixed(means_CNM, stds_CNM, weights_MC)[1]

    def _gradient(self, weights_D: ArrayLike) -> Array:
        parts = []
        for member, weights_M in self._asked():
            assert supports(member, "gradient")
            parts.append(weights_M[:, None] * np.asarray(member.gradient(weights_D)))
        return np.asarray(sum(parts), dtype=np.float64)

    def _plain_law(self) -> dict[str, Any]:
        members, weights = [], []
        for member, weights_M in self._asked():
            assert supports(member, "plain_law")
            members.append(member.plain_law())
            weights.append(weights_M)
        return {"kind": "mean", "members": members, "weights_CM": np.array(weights)}

    def _covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        weights = self._checked(weights_KD)
        mean_KM = self._predict(weights)
        total_KK = np.zeros((len(weights), len(weights)))
        for member, shares_M in self._asked():
            assert supports(member, "covariance")
            own_M = np.asarray(loads_M) * np.sqrt(shares_M)
            own_KM = np.asarray(member.predict(weights)).reshape(mean_KM.shape)
            apart_K = (own_KM - mean_KM) @ own_M
            total_KK += member.covariance(weights, own_M) + np.outer(apart_K, apart_K)
        return total_KK


def _means(member: Predictor, weights_ND: Array) -> Array:
    """Return a member's means, shape (N, M), without its deviations, which cost more."""
    means = np.asarray(member.predict(weights_ND), dtype=np.float64)
    return means.reshape(len(weights_ND), -1)


def _mixed(means_CNM: Array, stds_CNM: Array, weights_MC: Array) -> tuple[Array, Array]:
    """Return the weighted mean of predictions, and its standard deviation."""
    weights_CM = weights_MC.T[:, None]
    means_NM = (weights_CM * means_CNM).sum(axis=0)
    apart_NM = (weights_CM * (means_CNM - means_NM) ** 2).sum(axis=0)
    return means_NM, np.sqrt(((weights_CM * stds_CNM).sum(axis=0)) ** 2 + apart_NM)


class EnsembleRegressor(CombinedRegressor):
    """The mean of its members' predictions.

    Attributes:
        members: Names of regressors.
        random_state: Seed of the members.
    """

    def __init__(
        self,
        members: Sequence[str] = ("gaussian_process", "skills", "power"),
        random_state: int = 0,
    ) -> None:
        self.members = members
        self.random_state = random_state

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(self.members)

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        if self._refit(weights_ND, losses_NM):
            return
        self.members_ = [self._fitted(name, None, weights_ND, losses_NM) for name in self.names]
        self.weights_MC = self._weights(np.empty((len(self.names), 0)), losses_NM)

    def _weights(self, means_CNM: Array, losses_NM: Array) -> Array:
        return np.full((losses_NM.shape[1], len(means_CNM)), 1.0 / len(means_CNM))
