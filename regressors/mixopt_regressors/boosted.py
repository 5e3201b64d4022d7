"""RegMix's regressor: LightGBM with its published parameters, one model for each target.

Boosting gbdt, objective regression, metrics l1 and l2, 1000 iterations at a learning rate of
0.01, all else LightGBM's defaults (sail-sg/regmix, regression.ipynb). Two things differ.

- Their notebook stops early on the test set. Here the number of trees is that with the lowest
  l2 on held-out folds of the training rows; then all rows are fitted with it.
- LightGBM's default of 20 rows in a leaf predicts a constant below 40 trials. Here it is a
  sixteenth of the rows, at least 3, at most 20.

The standard deviation is the error on those held-out folds, the same for every mixture.

Shapes: N trials, D domains, M targets.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import lightgbm
import numpy as np

from mixopt.fitting import splits
from mixopt.system import Array, IntArray, read_text, write_text
from mixopt_regressors.mixture_regressor import MixtureRegressor

PATIENCE = 50  # iterations without an improvement on held-out folds before stopping


class LightGBMRegressor(MixtureRegressor):
    """Gradient-boosted trees, one booster for each target.

    Attributes:
        iterations: Maximum number of trees.
        folds: Held-out folds that choose the number of trees.
        random_state: Seed of the folds and of LightGBM.
    """

    saved_as = ("json", "npz", "lightgbm")
    by_target = ("trees_M", "noise_M")

    def __init__(self, iterations: int = 1000, folds: int = 3, random_state: int = 42) -> None:
        self.iterations = iterations
        self.folds = folds
        self.random_state = random_state

    def select(self, targets: Sequence[int]) -> Self:
        """Return a fitted copy that predicts only these targets, by position."""
        selected = super().select(targets)
        selected.boosters_ = [self.boosters_[target] for target in targets]
        return selected

    def save(self, path: Path) -> None:
        """Write parameters, arrays, and each booster in LightGBM's text format."""
        super().save(path)
        for target, booster in enumerate(self.boosters_):
            write_text(path / f"target-{target}.txt", booster.model_to_string())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a fit that `save` wrote."""
        regressor = super().load(path)
        files = [path / f"target-{target}.txt" for target in range(regressor.trees_M.size)]
        regressor.boosters_ = [lightgbm.Booster(model_str=read_text(file)) for file in files]
        return regressor

    def _fit(self, weights_ND: Array, losses_NM: Array) -> None:
        fold_N = self._fold_of(weights_ND)
        parameters = self._parameters(len(weights_ND))
        trees = []
        noise = []
        self.boosters_ = []
        for target, losses_N in enumerate(losses_NM.T):
            data = lightgbm.Dataset(weights_ND, losses_N, params=parameters, free_raw_data=False)
            data.construct()
            count, error = self._chosen(target, data, parameters, fold_N)
            trees.append(count)
            noise.append(float(losses_N.std()) if error is None else error)
            self.boosters_.append(lightgbm.train(parameters, data, num_boost_round=count))
        self.trees_M = np.array(trees)
        self.noise_M = np.array(noise)

    def _chosen(
        self, target: int, data: Any, parameters: dict[str, Any], fold_N: IntArray | None
    ) -> tuple[int, float | None]:
        """Return the number of trees, and its held-out error (None: unknown)."""
        if self._before is not None:
            return int(self._before.trees_M[target]), float(self._before.noise_M[target])
        if fold_N is None:
            return self.iterations, None
        rows = [
            (np.flatnonzero(train_N), np.flatnonzero(out_N)) for train_N, out_N in splits(fold_N)
        ]
        stop = lightgbm.early_stopping(PATIENCE, first_metric_only=True, verbose=False)
        history = lightgbm.cv(
            parameters, data, num_boost_round=self.iterations, folds=rows, callbacks=[stop]
        )
        squared = history["valid l2-mean"]
        return len(squared), float(np.sqrt(squared[-1]))

    def _parameters(self, rows: int) -> dict[str, Any]:
        return {
            "boosting": "gbdt",
            "objective": "regression",
            "metric": ["l2", "l1"],
            "learning_rate": 0.01,
            "min_child_samples": int(np.clip(rows // 16, 3, 20)),
            "seed": self.random_state,
            "num_threads": 1,
            "force_col_wise": True,
            "deterministic": True,
            "verbosity": -1,
        }

    def _predict(self, weights_ND: Array) -> Array:
        columns = [booster.predict(weights_ND, num_threads=1) for booster in self.boosters_]
        return np.stack(columns, axis=1)

    def _std(self, weights_ND: Array) -> Array:
        return np.tile(self.noise_M, (len(weights_ND), 1))
