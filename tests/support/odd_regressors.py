"""Regressors that no package has, to be named as `odd_regressors:Name`."""

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_info


class Plain(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A ridge with nothing but `fit` and `predict`."""

    def fit(self, weights_ND, losses_NM):
        self.inner_ = Ridge(alpha=1e-6).fit(self._inputs(weights_ND), losses_NM)
        return self

    def predict(self, weights_ND):
        return self.inner_.predict(self._inputs(weights_ND))

    def _inputs(self, weights_ND):
        return weights_ND


class NeedsEpochs(Plain):
    """Needs an inventory to be fitted, and can only be refitted from scratch.

    Its predictions are linear in the square roots of epochs.
    """

    def __init__(self, inventory=None, tokens=None):
        self.inventory = inventory
        self.tokens = tokens

    def fit(self, weights_ND, losses_NM):
        if self.inventory is None or self.tokens is None:
            raise ValueError("no inventory")
        return super().fit(weights_ND, losses_NM)

    def _inputs(self, weights_ND):
        return np.sqrt(np.asarray(weights_ND) * self.tokens / np.array(self.inventory))


class RefusesToFit(BaseEstimator):
    def fit(self, weights_ND, losses_NM=None):
        raise RuntimeError("it was fitted")

    predict = fit


class OfItsOwnKind(Plain):
    """Has a plain law that no page knows how to use."""

    def plain_law(self):
        return {"kind": "mean", "members": [{"kind": "alert"}], "weights_CM": np.ones((1, 4))}


class SeesThreads(Ridge):
    """Notes how many threads BLAS may use while it is fitted, and while it predicts."""

    seen: ClassVar[list[int]] = []

    def fit(self, weights_ND, losses_NM):
        self.seen.extend(blas_threads())
        return super().fit(weights_ND, losses_NM)

    def predict(self, weights_ND):
        self.seen.extend(blas_threads())
        return super().predict(weights_ND)


def blas_threads():
    return [item["num_threads"] for item in threadpool_info() if item["user_api"] == "blas"]
