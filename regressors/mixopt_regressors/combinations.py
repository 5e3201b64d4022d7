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
from typing import Any, Self

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


def _all_have(ability: str) -> Callable[[Any], bool]:
    return lambda regressor: all(supports(member, ability) for _, member, _ in regressor._used())


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
        twice = () if self.carried is None else [name + CARRIED for name in self.candidates]
        epochs = (EPOCHS,) if getattr(self, "repeats_", False) else ()
        return (*self.candidates, *epochs, *twice)

    @available_if(_all_have("gradient"))  # type: ignore[untyped-decorator]
    def gradient(self, weights_D: ArrayLike) -> Array:
        """Return the gradient of each loss, shape (M, D)."""
        parts = [
            weights_M[:, None] * np.asarray(member.gradient(weights_D))
            for _, member, weights_M in self._used()
        ]
        return np.asarray(sum(parts))

    @available_if(_all_have("covariance"))  # type: ignore[untyped-decorator]
    def covariance(self, weights_KD: ArrayLike, loads_M: ArrayLike) -> Array:
        """Return the covariance of a weighted sum of the losses, shape (K, K)."""
        weights = self._checked(weights_KD)
        mean_KM = self._predict(weights)
        total_KK = np.zeros((len(weights), len(weights)))
        for _, member, shares_M in self._used():
            member_loads_M = np.asarray(loads_M) * np.sqrt(shares_M)
            deviation_K = (predict_losses(member, weights) - mean_KM) @ member_loads_M
            total_KK += member.covariance(weights, member_loads_M) + np.outer(
                deviation_K, deviation_K
            )
        return total_KK

    @available_if(_all_have("plain_law"))  # type: ignore[untyped-decorator]
    def plain_law(self) -> dict[str, Any]:
        """Return the law as plain numbers."""
        _, members, weights = zip(*self._used(), strict=True)
        laws = [member.plain_law() for member in members]
        return {"kind": "mean", "members": laws, "weights_CM": np.array(weights)}

    def select(self, targets: Sequence[int]) -> Self:
        """Return a fitted copy that predicts only these targets, by position."""
        selected = super().select(targets)
        if self.carried is not None:
            columns = [*range(self.n_features_in_), *(self.n_features_in_ + t for t in targets)]
            selected.carried = [[row[column] for column in columns] for row in self.carried]
        selected.members_ = [
            select_targets(member, targets) if member is not None and weights.any() else None
            for member, weights in zip(self.members_, selected.weights_MC.T, strict=True)
        ]
        return selected

    @property
    def can_be_saved(self) -> bool:
        """Whether all members can be saved and are named by entry points."""
        plain = not any(":" in name for name in self.names)
        return plain and all(supports_saving(member) for _, member, _ in self._used())

    def save(self, path: Path) -> None:
        """Write the weights, and each member to its own folder."""
        super().save(path)
        for number, (_, member, _) in enumerate(self._used()):
            member.save(path / f"member-{number}")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a fit that `save` wrote."""
        regressor = super().load(path)
        for name in regressor.names:
            check_trusted("regressor", name, str(path / "regressor.json"), trust=False)
        used_C = np.asarray(regressor.weights_MC.any(axis=0))
        places = np.cumsum(used_C) - 1
        regressor.members_ = list[Predictor | None]()
        for name, is_used, place in zip(regressor.names, used_C, places, strict=True):
            folder, member = path / f"member-{place}", regressor._new_member(name)
            regressor.members_.append(read_regressor(name, folder, member) if is_used else None)
        return regressor

    def cross_fit(
        self,
        weights_ND: ArrayLike,
        losses_NM: ArrayLike,
        fold_N: IntArray,
        update: Update = no_progress,
    ) -> tuple[Array, Array]:
        """Fit on all rows; predict each row by members fitted without its fold."""
        weights, losses = np.asarray(weights_ND, float), np.asarray(losses_NM, float)
        repetition = self._repetition()
        is_candidate = EPOCHS in self.candidates
        self.repeats_ = np.array(
            not is_candidate and repetition is not None and repetition.is_learnable(weights)
        )
        self.n_features_in_, self.flat_ = weights.shape[1], False
        answers = []
        for number, name in enumerate(self.names):
            update(number / len(self.names), name)
            answers.append(self._cross_fitted(name, weights, losses, fold_N))
        members = [member for member, _, _ in answers]
        means_CNM = np.stack([means_NM for _, means_NM, _ in answers])
        stds_CNM = np.stack([stds_NM for _, _, stds_NM in answers])
        self.held_out_members = dict(zip(self.names, means_CNM, strict=True))
        self.weights_MC = stacking_weights(losses - means_CNM)
        self.errors_MC = np.sqrt(((losses - means_CNM) ** 2).mean(axis=1)).T
        used = [bool(weights_M.any()) for weights_M in self.weights_MC.T]
        self.members_ = [
            member if counts else None for member, counts in zip(members, used, strict=True)
        ]
        means_NM, stds_NM = np.empty_like(losses), np.empty_like(losses)
        for train_N, out_N in splits(fold_N):
            weights_MC = stacking_weights(losses[train_N] - means_CNM[:, train_N])
            means_NM[out_N], stds_NM[out_N] = _mixed(
                means_CNM[:, out_N], stds_CNM[:, out_N], weights_MC
            )
        return means_NM, stds_NM

    def explain(self, targets: Sequence[str]) -> list[str]:
        """Return a line for each target: weights of the candidates and their held-out errors."""
        lines = []
        for target, weights_C, errors_C in zip(
            targets, self.weights_MC, self.errors_MC, strict=True
        ):
            pairs = sorted(zip(weights_C, self.names, strict=True), reverse=True)
            shares = " + ".join(f"{weight:.2f} {name}" for weight, name in pairs if weight > 0)
            ranked = sorted(zip(errors_C, self.names, strict=True))
            errors = ", ".join(f"{name} {error:.4f}" for error, name in ranked)
            lines.append(f"{target}: {shares} (held-out errors: {errors})")
        return lines

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        if (before := self._before) is not None:  # a refit, which keeps the choices
            self.weights_MC, self.repeats_ = before.weights_MC, before.repeats_
            self.members_ = list[Predictor | None]()
            for name, member in zip(self.names, before.members_, strict=True):
                if member is None:
                    self.members_.append(None)
                    continue
                regressor = member.tuned() if supports(member, "tuned") else self._new_member(name)
                self.members_.append(self._learned(name, regressor, weights_ND, losses_NM))
            return
        if not self.folds:
            members = [
                self._learned(n, self._new_member(n), weights_ND, losses_NM) for n in self.names
            ]
            self.members_, self.repeats_ = list(members), np.array(False)
            self.weights_MC = np.full((losses_NM.shape[1], len(members)), 1.0 / len(members))
            self.errors_MC = np.zeros_like(self.weights_MC)
            return
        fold_N = self._fold_of(weights_ND)
        if fold_N is None:
            raise PluginError("auto: one mixture only; it needs at least 2 to hold one out")
        self.cross_fit(weights_ND, losses_NM, fold_N)

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
    ) -> tuple[Predictor, Array, Array]:
        """Fit a member on all rows; predict each row without its fold."""
        regressor = self._new_member(name)
        if supports(regressor, "cross_fit") and not name.endswith(CARRIED):
            means_NM, stds_NM = regressor.cross_fit(weights_ND, losses_NM, fold_N, no_progress)
            return regressor, means_NM, stds_NM
        fitted = self._learned(name, regressor, weights_ND, losses_NM)

        def without(rows: Array, losses: Array) -> Predictor:
            unfitted: Regressor = self._new_member(name)
            if len(weights_ND) >= MANY_ROWS and hasattr(fitted, "chosen"):
                unfitted = fitted.chosen()
            return self._learned(name, unfitted, rows, losses)

        return fitted, *out_of_fold(without, weights_ND, losses_NM, fold_N)

    def _new_member(self, name: str) -> Regressor:
        base_name = name.removesuffix(CARRIED)
        return make_regressor(base_name, self.random_state, self._repetition())

    def _repetition(self) -> Repetition | None:
        if self.inventory is None or self.tokens is None:
            return None
        return Repetition(tuple(self.inventory), float(self.tokens))

    def _used(self) -> list[tuple[str, Any, Array]]:
        """Return the used members: name, regressor, and weights, shape (M,)."""
        entries = zip(self.names, self.members_, self.weights_MC.T, strict=True)
        return [
            (name, member, weights_M) for name, member, weights_M in entries if member is not None
        ]

    def _predict(self, weights_ND: Array) -> Array:
        parts = [
            weights_M * predict_losses(member, weights_ND) for _, member, weights_M in self._used()
        ]
        return np.asarray(sum(parts))

    def _std(self, weights_ND: Array) -> Array:
        answers = [predict_with_std(member, weights_ND) for _, member, _ in self._used()]
        weights_MC = np.stack([weights_M for *_, weights_M in self._used()], axis=1)
        means_CNM, stds_CNM = (np.stack(part) for part in zip(*answers, strict=True))
        return _mixed(means_CNM, stds_CNM, weights_MC)[1]


def _mixed(means_CNM: Array, stds_CNM: Array, weights_MC: Array) -> tuple[Array, Array]:
    """Return the weighted mean of predictions, and its standard deviation."""
    weights_CM = weights_MC.T[:, None]
    means_NM = (weights_CM * means_CNM).sum(axis=0)
    spread_NM = (weights_CM * (means_CNM - means_NM) ** 2).sum(axis=0)
    return means_NM, np.sqrt(((weights_CM * stds_CNM).sum(axis=0)) ** 2 + spread_NM)


def stacking_weights(errors_CNM: Array, prior: float = PRIOR) -> Array:
    """Return stacking weights by target, shrunk towards those of the other targets."""
    trials = errors_CNM.shape[1]
    products_MCC = np.einsum("cnm,dnm->mcd", errors_CNM, errors_CNM) / trials
    squares_MC = np.einsum("mcc->mc", products_MCC)
    scale_M = np.maximum(squares_MC.min(axis=1), EXACT * squares_MC.max(axis=1) + 1e-300)
    scaled_MCC = products_MCC / scale_M[:, None, None]
    pooled_CC = scaled_MCC.mean(axis=0)
    shrunk_MCC = (trials * scaled_MCC + prior * pooled_CC) / (trials + prior)
    equal_CC = PULL / trials * np.eye(len(pooled_CC))
    rest_MCC = scaled_MCC.sum(axis=0) - scaled_MCC
    shared_MC = np.stack([_minimum_on_simplex(rest_CC + equal_CC) for rest_CC in rest_MCC])
    # Times weights that add up to 1: their difference from those of the others.
    deviation_MCC = np.eye(len(pooled_CC)) - shared_MC[:, :, None]
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
