"""The regressor `auto`: a weighted mean of several regressors, with weights by target.

All candidates predict the same folds; replicates of a mixture are held out together. The weights of
a target minimise the squared error of the weighted mean on these predictions (stacking: Breiman;
van der Laan); they are >= 0 and add up to 1. A few dozen trials tell little about one target, so
its errors are pooled with those of all targets, which count as `PRIOR` trials, and its weights are
shrunk towards the best weights of the other targets: on noisy targets the errors of members hardly
differ, and shrinking towards equal weights would keep the worse member. Held-out predictions of the
combination, from which intervals are made, use weights from the other folds.

With trials carried from an earlier corpus (mixopt.trials.reindexing) each candidate appears twice,
with and without these rows, and weights follow from held-out errors on trials of this corpus, loss
by loss. A loss that carried trials lack is imputed by the candidate without them.

With inventory and tokens, and enough trials that repeat a domain, the law of epochs is a candidate
too.

Shapes: N trials, D domains, M targets, C candidates.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.metaestimators import available_if

from mixopt.errors import PluginError
from mixopt.fitting import (
    Predictor,
    Regressor,
    Repetition,
    fit_regressor,
    make_regressor,
    out_of_fold,
    predict_losses,
    predict_with_std,
    read_regressor,
    select_targets,
    splits,
    supports,
    supports_saving,
)
from mixopt.system import Array, IntArray, Update, check_trusted, no_progress
from mixopt_regressors.mixture_regressor import MixtureRegressor

# All have gradients, for the search of proposals. Other candidates can be configured.
CANDIDATES = ("gaussian_process", "skills")
EPOCHS = "epochs"
CARRIED = "+carried"  # suffix of candidates that are also fitted on carried trials
PRIOR = 64.0  # weight of the errors pooled over targets, in trials
PULL = 16.0  # strength of shrinkage towards the other targets' weights, in trials
MANY_ROWS = 48  # minimum number of rows for folds to reuse settings chosen on all rows
MIN_SHARE = 0.05  # smaller weights are set to 0
EXACT = 1e-6  # of the worst candidate's squared error; smaller errors count as 0


class Member(NamedTuple):
    """A fitted candidate that is used, and its weight on each target."""

    regressor: Any
    weights_M: Array


class CrossFit(NamedTuple):
    """A candidate fitted on all rows, and each row predicted without its fold."""

    regressor: Predictor
    means_NM: Array
    stds_NM: Array


def _all_have(ability: str) -> Callable[[Any], bool]:
    return lambda auto: all(supports(member.regressor, ability) for member in auto._used())


class AutoRegressor(MixtureRegressor):
    """A weighted mean of candidates, with weights from held-out folds, by target.

    The standard deviation is the weighted mean of the members', with their disagreement added in
    quadrature. Members have the names of the configuration. A member with weight 0 on a target does
    not predict it in a search.

    Attributes:
        candidates: Names of regressors.
        folds: Number of held-out folds, at most that of mixtures; 0 for a plain mean.
        random_state: Seed of the folds and of the candidates.
        inventory: Distinct tokens of each domain; without it and `tokens` no law of epochs.
        tokens: Training tokens of each trial.
        carried: Rows of carried trials: weights, then losses; None for a missing loss.
    """

    by_target = ("weights_MC", "errors_MC")
    shared = ("repeats_",)
    members_: list[Predictor | None]

    def __init__(
        self,
        candidates: Sequence[str] = CANDIDATES,
        folds: int = 5,
        random_state: int = 0,
        inventory: Sequence[float] | None = None,
        tokens: float | None = None,
        carried: Sequence[Sequence[float | None]] | None = None,
    ) -> None:
        self.candidates = candidates
        self.folds = folds
        self.random_state = random_state
        self.inventory = inventory
        self.tokens = tokens
        self.carried = carried

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, with `epochs` if the trials repeat domains."""
        names = list(self.candidates)
        if getattr(self, "repeats_", False):
            names.append(EPOCHS)
        if self.carried is not None:
            names += [name + CARRIED for name in self.candidates]
        return tuple(names)

    @available_if(_all_have("gradient"))  # type: ignore[untyped-decorator]
    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the gradient of each loss, shape (M, D)."""
        parts = []
        for member in self._used():
            gradient_MD = np.asarray(member.regressor.gradient(weights_D))
            parts.append(member.weights_M[:, None] * gradient_MD)
        return np.asarray(sum(parts))

    @available_if(_all_have("covariance"))  # type: ignore[untyped-decorator]
    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses, shape (K, K)."""
        weights = self._checked(weights_KD)
        mean_KM = self._predict(weights)
        total_KK = np.zeros((len(weights), len(weights)))
        for member in self._used():
            member_loads_M = np.asarray(loads_M) * np.sqrt(member.weights_M)
            deviation_KM = predict_losses(member.regressor, weights) - mean_KM
            deviation_K = deviation_KM @ member_loads_M
            covariance_KK = member.regressor.covariance(weights, member_loads_M)
            total_KK += covariance_KK + np.outer(deviation_K, deviation_K)
        return total_KK

    @available_if(_all_have("plain_law"))  # type: ignore[untyped-decorator]
    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers."""
        laws = [member.regressor.plain_law() for member in self._used()]
        weights_CM = np.array([member.weights_M for member in self._used()])
        return {"kind": "mean", "members": laws, "weights_CM": weights_CM}

    def select(self, targets: Sequence[int]) -> Self:
        """Return a fitted copy that predicts only these targets, by position."""
        selected = super().select(targets)
        if self.carried is not None:
            rows = []
            for row in self.carried:
                weights = list(row[: self.n_features_in_])
                losses = row[self.n_features_in_ :]
                rows.append(weights + [losses[target] for target in targets])
            selected.carried = rows
        selected.members_ = list[Predictor | None]()
        for member, weights_M in zip(self.members_, selected.weights_MC.T, strict=True):
            if member is None or not weights_M.any():
                selected.members_.append(None)
            else:
                selected.members_.append(select_targets(member, targets))
        return selected

    @property
    def can_be_saved(self) -> bool:
        """Whether all members can be saved and are named by entry points."""
        if any(":" in name for name in self.names):
            return False
        return all(supports_saving(member.regressor) for member in self._used())

    def save(self, path: Path) -> None:
        """Write the weights, and each member to its own folder."""
        super().save(path)
        for number, member in enumerate(self._used()):
            member.regressor.save(path / f"member-{number}")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a fit that `save` wrote."""
        regressor = super().load(path)
        for name in regressor.names:
            check_trusted("regressor", name, str(path / "regressor.json"), trust=False)
        is_used_C = np.asarray(regressor.weights_MC.any(axis=0))
        number_C = np.cumsum(is_used_C) - 1
        regressor.members_ = list[Predictor | None]()
        for name, is_used, number in zip(regressor.names, is_used_C, number_C, strict=True):
            member: Predictor | None = None
            unfitted = regressor._new_member(name)
            if is_used:
                member = read_regressor(name, path / f"member-{number}", unfitted)
            regressor.members_.append(member)
        return regressor

    def cross_fit(
        self,
        weights_ND: ArrayLike,
        losses_NM: ArrayLike,
        fold_N: IntArray,
        update: Update = no_progress,
    ) -> tuple[Array, Array]:
        """Fit on all rows; predict each row by members fitted without its fold."""
        weights = np.asarray(weights_ND, float)
        losses = np.asarray(losses_NM, float)
        self.n_features_in_ = weights.shape[1]
        self.flat_ = False
        self.repeats_ = np.array(self._can_learn_epochs(weights))
        fits = []
        for number, name in enumerate(self.names):
            update(number / len(self.names), name)
            fits.append(self._cross_fitted(name, weights, losses, fold_N))
        means_CNM = np.stack([fit.means_NM for fit in fits])
        stds_CNM = np.stack([fit.stds_NM for fit in fits])
        errors_CNM = losses - means_CNM
        self.held_out_members = dict(zip(self.names, means_CNM, strict=True))
        self.weights_MC = stacking_weights(errors_CNM)
        self.errors_MC = np.sqrt((errors_CNM**2).mean(axis=1)).T
        self.members_ = list[Predictor | None]()
        for fit, weights_M in zip(fits, self.weights_MC.T, strict=True):
            self.members_.append(fit.regressor if weights_M.any() else None)
        means_NM = np.empty_like(losses)
        stds_NM = np.empty_like(losses)
        for train_N, out_N in splits(fold_N):
            weights_MC = stacking_weights(errors_CNM[:, train_N])
            means_NM[out_N], stds_NM[out_N] = _mixed(
                means_CNM[:, out_N], stds_CNM[:, out_N], weights_MC
            )
        return means_NM, stds_NM

    def explain(self, targets: Sequence[str]) -> list[str]:
        """Return a line for each target: weights of the candidates and their held-out errors."""
        lines = []
        rows = zip(targets, self.weights_MC, self.errors_MC, strict=True)
        for target, weights_C, errors_C in rows:
            pairs = sorted(zip(weights_C, self.names, strict=True), reverse=True)
            shares = " + ".join(f"{weight:.2f} {name}" for weight, name in pairs if weight > 0)
            ranked = sorted(zip(errors_C, self.names, strict=True))
            errors = ", ".join(f"{name} {error:.4f}" for error, name in ranked)
            lines.append(f"{target}: {shares} (held-out errors: {errors})")
        return lines

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        if self._before is not None:
            self._refit(self._before, weights_ND, losses_NM)
        elif not self.folds:
            self._fit_plain_mean(weights_ND, losses_NM)
        else:
            fold_N = self._fold_of(weights_ND)
            if fold_N is None:
                raise PluginError("auto: one mixture only; it needs at least 2 to hold one out")
            self.cross_fit(weights_ND, losses_NM, fold_N)

    def _refit(self, before: Self, weights_ND: Array, losses_NM: Array) -> None:
        """Fit the members of an earlier fit, with its weights."""
        self.weights_MC = before.weights_MC
        self.repeats_ = before.repeats_
        self.members_ = list[Predictor | None]()
        for name, member in zip(self.names, before.members_, strict=True):
            if member is None:
                self.members_.append(None)
                continue
            regressor = member.tuned() if supports(member, "tuned") else self._new_member(name)
            self.members_.append(self._learned(name, regressor, weights_ND, losses_NM))

    def _fit_plain_mean(self, weights_ND: Array, losses_NM: Array) -> None:
        """Fit all candidates, with equal weights."""
        self.members_ = list[Predictor | None]()
        for name in self.names:
            regressor = self._new_member(name)
            self.members_.append(self._learned(name, regressor, weights_ND, losses_NM))
        count = len(self.members_)
        self.repeats_ = np.array(False)
        self.weights_MC = np.full((losses_NM.shape[1], count), 1.0 / count)
        self.errors_MC = np.zeros_like(self.weights_MC)

    def _learned(
        self, name: str, regressor: Regressor, weights_ND: Array, losses_NM: Array
    ) -> Predictor:
        """Fit a member; one with the suffix also on carried trials."""
        if name.endswith(CARRIED):
            carried = np.array(self.carried, float)
            rows_KD, carried_KM = np.split(carried, [self.n_features_in_], axis=1)
            if np.isnan(carried_KM).any():
                without_carried = fit_regressor(name, regressor, weights_ND, losses_NM)
                predicted_KM = predict_losses(without_carried, rows_KD)
                carried_KM = np.where(np.isnan(carried_KM), predicted_KM, carried_KM)
            weights_ND = np.vstack([weights_ND, rows_KD])
            losses_NM = np.vstack([losses_NM, carried_KM])
        return fit_regressor(name, regressor, weights_ND, losses_NM)

    def _cross_fitted(
        self, name: str, weights_ND: Array, losses_NM: Array, fold_N: IntArray
    ) -> CrossFit:
        """Fit a member on all rows; predict each row without its fold."""
        regressor = self._new_member(name)
        if supports(regressor, "cross_fit") and not name.endswith(CARRIED):
            means_NM, stds_NM = regressor.cross_fit(weights_ND, losses_NM, fold_N, no_progress)
            return CrossFit(regressor, means_NM, stds_NM)
        fitted = self._learned(name, regressor, weights_ND, losses_NM)

        def without(rows: Array, losses: Array) -> Predictor:
            unfitted: Regressor = self._new_member(name)
            if len(weights_ND) >= MANY_ROWS and hasattr(fitted, "chosen"):
                unfitted = fitted.chosen()
            return self._learned(name, unfitted, rows, losses)

        means_NM, stds_NM = out_of_fold(without, weights_ND, losses_NM, fold_N)
        return CrossFit(fitted, means_NM, stds_NM)

    def _new_member(self, name: str) -> Regressor:
        base_name = name.removesuffix(CARRIED)
        return make_regressor(base_name, self.random_state, self._repetition())

    def _repetition(self) -> Repetition | None:
        if self.inventory is None or self.tokens is None:
            return None
        return Repetition(tuple(self.inventory), float(self.tokens))

    def _can_learn_epochs(self, weights_ND: Array) -> bool:
        """Return whether the law of epochs is a further candidate."""
        repetition = self._repetition()
        if repetition is None or EPOCHS in self.candidates:
            return False
        return repetition.is_learnable(weights_ND)

    def _used(self) -> list[Member]:
        """Return the members that are used."""
        pairs = zip(self.members_, self.weights_MC.T, strict=True)
        return [Member(member, weights_M) for member, weights_M in pairs if member is not None]

    def _predict(self, weights_ND: Array) -> Array:
        parts = [
            member.weights_M * predict_losses(member.regressor, weights_ND)
            for member in self._used()
        ]
        return np.asarray(sum(parts))

    def _std(self, weights_ND: Array) -> Array:
        means = []
        stds = []
        weights = []
        for member in self._used():
            means_NM, stds_NM = predict_with_std(member.regressor, weights_ND)
            means.append(means_NM)
            stds.append(stds_NM)
            weights.append(member.weights_M)
        _, mixed_NM = _mixed(np.stack(means), np.stack(stds), np.stack(weights, axis=1))
        return mixed_NM


def _mixed(means_CNM: Array, stds_CNM: Array, weights_MC: Array) -> tuple[Array, Array]:
    """Return the weighted mean of predictions, and its standard deviation."""
    weights_CM = weights_MC.T[:, None]
    means_NM = (weights_CM * means_CNM).sum(axis=0)
    spread_NM = (weights_CM * (means_CNM - means_NM) ** 2).sum(axis=0)
    mean_stds_NM = (weights_CM * stds_CNM).sum(axis=0)
    return means_NM, np.sqrt(mean_stds_NM**2 + spread_NM)


def stacking_weights(errors_CNM: Array, prior: float = PRIOR) -> Array:
    """Return stacking weights by target, shrunk towards those of the other targets."""
    trials = errors_CNM.shape[1]
    products_MCC = np.einsum("cnm,dnm->mcd", errors_CNM, errors_CNM) / trials
    squares_MC = np.einsum("mcc->mc", products_MCC)
    scale_M = np.maximum(squares_MC.min(axis=1), EXACT * squares_MC.max(axis=1) + 1e-300)
    scaled_MCC = products_MCC / scale_M[:, None, None]
    pooled_CC = scaled_MCC.mean(axis=0)
    shrunk_MCC = (trials * scaled_MCC + prior * pooled_CC) / (trials + prior)
    identity_CC = np.eye(len(pooled_CC))
    others_MCC = scaled_MCC.sum(axis=0) - scaled_MCC + PULL / trials * identity_CC
    others_MC = np.stack(list(map(_minimum_on_simplex, others_MCC)))
    # Times weights that add up to 1, this is their difference from those of the other targets.
    deviation_MCC = identity_CC - others_MC[:, :, None]
    shrunk_MCC += PULL / trials * np.swapaxes(deviation_MCC, 1, 2) @ deviation_MCC
    return np.stack([_without_small(_minimum_on_simplex(shrunk_CC)) for shrunk_CC in shrunk_MCC])


def _without_small(weights_C: Array) -> Array:
    large_C = np.where(weights_C < MIN_SHARE, 0.0, weights_C)
    scaled: Array = large_C / large_C.sum()
    return scaled


def _minimum_on_simplex(products_CC: Array) -> Array:
    """Minimise w' S w over w >= 0 with sum 1, as non-negative least squares."""
    from scipy.optimize import nnls

    values_C, vectors_CC = np.linalg.eigh(products_CC)
    root_CC = np.sqrt(np.maximum(values_C, 0.0))[:, None] * vectors_CC.T
    heavy = 1e4 * max(float(np.sqrt(np.trace(products_CC))), 1e-12)
    matrix: Any = np.vstack([root_CC, np.full(len(values_C), heavy)])
    weights_C, _ = nnls(matrix, np.append(np.zeros(len(values_C)), heavy))
    return np.asarray(weights_C / weights_C.sum())
