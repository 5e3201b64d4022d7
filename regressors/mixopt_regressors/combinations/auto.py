"""Choose regressors and their weights for each target by held-out trials.

Every candidate predicts the same folds, in which a mixture and its replicates are held out
together. The weights of a target minimise the squared error of the weighted mean on those
predictions; they are at least 0 and add up to 1, so that one candidate alone is a possible
answer. A few dozen trials say little about one target, so each target's errors are pooled with
those of all targets, which count as `PRIOR` trials. Held-out predictions of the whole (which the
intervals are made from) use weights from the errors of the other folds' trials.

Where inventory and tokens are given and enough trials repeat a domain (mixopt.fitting.regressor),
the law of epochs is a candidate too; where they hardly repeat, it has nothing to learn from.

That a convex combination on held-out predictions ("stacking") is at least about as good as
the best member is Breiman's and van der Laan's; the pooling over targets is ours.

Shapes: N trials, D domains, M targets, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mixopt.errors import PluginError
from mixopt.fitting import Repetition, grouped_folds, row_groups
from mixopt.system import Array, IntArray
from mixopt_regressors.combinations.combined import CombinedRegressor

# All have gradients, so that a proposal is found by going downhill. Others can be named.
CANDIDATES = ("gaussian_process", "skills", "power")
EPOCHS = "epochs"
PRIOR = 64.0  # trials that the errors pooled over targets count as
PULL = 16.0  # chosen on synthetic worlds: more costs accuracy at the size of the trials
MIN_SHARE = 0.05  # a smaller weight is left out
EXACT = 1e-6  # of the worst candidate's squared error: a smaller one is ignored


class AutoRegressor(CombinedRegressor):
    """A weighted mean of candidates, with weights from held-out folds, by target.

    Attributes:
        candidates: Names of regressors.
        folds: Held-out folds, fewer where there are fewer mixtures.
        random_state: Seed of the folds and of the candidates.
        inventory: Distinct tokens of each domain; None of both: no law of epochs.
        tokens: That each trial was trained on.
    """

    by_target = ("weights_MC", "errors_MC")
    shared = ("repeats_",)

    def __init__(
        self,
        candidates: Sequence[str] = CANDIDATES,
        folds: int = 5,
        random_state: int = 0,
        inventory: Sequence[float] | None = None,
        tokens: float | None = None,
    ) -> None:
        self.candidates = candidates
        self.folds = folds
        self.random_state = random_state
        self.inventory = inventory
        self.tokens = tokens

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, `epochs` among them where the trials repeat domains."""
        names = tuple(self.candidates)
        return (*names, EPOCHS) if getattr(self, "repeats_", False) else names

    def tuned(self) -> Self:
        """Return a copy to fit again that keeps the weights and what the members chose."""
        copy: Self = super().tuned()
        copy.repeats_ = self.repeats_
        return copy

    def cross_fit(
        self, weights_ND: ArrayLike, losses_NM: ArrayLike, fold_N: IntArray
    ) -> tuple[Array, Array]:
        """Fit on all rows, and predict each row without its fold (see `CombinedRegressor`)."""
        known = self._repetition()
        named = EPOCHS in self.candidates
        self.repeats_ = np.array(not named and known is not None and known.is_learnable(weights_ND))
        return super().cross_fit(weights_ND, losses_NM, fold_N)

    def explain(self, targets: Sequence[str]) -> list[str]:
        """Say for each target which candidates count and how wrong each was on held-out folds."""
        return [
            f"{target}: {self._shares(weights_C)} (held-out errors: {self._errors(errors_C)})"
            for target, weights_C, errors_C in zip(
                targets, self.weights_MC, self.errors_MC, strict=True
            )
        ]

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        if self._refit(weights_ND, losses_NM):
            return
        groups = row_groups(weights_ND)
        folds = min(self.folds, len(set(groups)))
        if folds < 2:
            raise PluginError("auto: one mixture only; it needs at least 2 to hold one out")
        self.cross_fit(weights_ND, losses_NM, grouped_folds(groups, folds, self.random_state))

    def _repetition(self) -> Repetition | None:
        if self.inventory is None or self.tokens is None:
            return None
        return Repetition(tuple(self.inventory), float(self.tokens))

    def _choose(self, means_CNM: Array, losses_NM: Array) -> None:
        super()._choose(means_CNM, losses_NM)
        self.errors_MC = np.sqrt(((losses_NM - means_CNM) ** 2).mean(axis=1)).T

    def _weights(self, means_CNM: Array, losses_NM: Array) -> Array:
        return stacking_weights(losses_NM - means_CNM)

    def _shares(self, weights_C: Array) -> str:
        pairs = sorted(zip(weights_C, self.names, strict=True), reverse=True)
        return " + ".join(f"{weight:.2f} {name}" for weight, name in pairs if weight > 0)

    def _errors(self, errors_C: Array) -> str:
        pairs = sorted(zip(errors_C, self.names, strict=True))
        return ", ".join(f"{name} {error:.4f}" for error, name in pairs)


def stacking_weights(
    errors_CNM: Array, prior: float = PRIOR, least: float = MIN_SHARE, pull: float = PULL
) -> Array:
    """Return convex combinations of least squared error, pulled towards the plain mean."""
    trials = errors_CNM.shape[1]
    products_MCC = np.einsum("cnm,dnm->mcd", errors_CNM, errors_CNM) / trials
    squares_MC = np.einsum("mcc->mc", products_MCC)
    scale_M = np.maximum(squares_MC.min(axis=1), EXACT * squares_MC.max(axis=1) + 1e-300)
    scaled_MCC = products_MCC / scale_M[:, None, None]
    pooled_CC = scaled_MCC.mean(axis=0)
    both_MCC = (trials * scaled_MCC + prior * pooled_CC) / (trials + prior)
    both_MCC += pull / trials * np.eye(len(pooled_CC))
    return np.stack([_kept(_least_on_simplex(both_CC), least) for both_CC in both_MCC])


def _kept(weights_C: Array, least: float) -> Array:
    kept_C = np.where(weights_C < least, 0.0, weights_C)
    scaled: Array = kept_C / kept_C.sum()
    return scaled


def _least_on_simplex(products_CC: Array) -> Array:
    """Minimise w' S w over w >= 0 that add up to 1, as least squares with w >= 0."""
    from scipy.optimize import nnls

    values_C, vectors_CC = np.linalg.eigh(products_CC)
    root_CC = np.sqrt(np.maximum(values_C, 0.0))[:, None] * vectors_CC.T
    heavy = 1e4 * max(float(np.sqrt(np.trace(products_CC))), 1e-12)
    left: Any = np.vstack([root_CC, np.full(len(values_C), heavy)])
    weights_C, _ = nnls(left, np.append(np.zeros(len(values_C)), heavy))
    return np.asarray(weights_C / weights_C.sum(), dtype=np.float64)
