"""Trials that regressors are checked on, and the error of a broken promise.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixopt.system import Array, IntArray

TRIALS, DOMAINS, TARGETS, FOLDS = 48, 4, 3, 2
FEW = 24  # trials of what takes many fits
SIZES = ((1e7, 1e9), (4e7, 1e9), (4e7, 8e9))  # parameters and tokens


def promise(kept: bool, said: str, detail: str) -> None:
    """Raise an error that says which promise of a regressor is broken, and how."""
    if not kept:
        raise AssertionError(f"a regressor promises: {said}. Broken: {detail}")


@dataclass(frozen=True, eq=False)
class CheckedTrials:
    """Trials whose losses follow an exponential law of the mixture, with a little noise.

    Attributes:
        sized: Whether rows hold parameters and tokens after the weights.
        count: How many there are.
    """

    sized: bool
    count: int = TRIALS

    @property
    def weights_ND(self) -> Array:
        """Mixtures."""
        return self._drawn[0][: self.count]

    @cached_property
    def rows(self) -> Array:
        """What a regressor is fitted on."""
        return np.hstack([self.weights_ND, self._sizes_N2]) if self.sized else self.weights_ND

    @cached_property
    def losses_NM(self) -> Array:
        """Losses, which fall with the size where there are several."""
        law_NM: Array = self._drawn[1][: self.count]
        if not self.sized:
            return law_NM
        shrinks_N: Array = 10.0 * self._sizes_N2.prod(axis=1) ** -0.1
        return law_NM + shrinks_N[:, None]

    @property
    def fold_N(self) -> IntArray:
        """Folds to hold out."""
        return np.arange(len(self.rows)) % FOLDS

    def few(self) -> CheckedTrials:
        """Return fewer of them, for what takes many fits."""
        return CheckedTrials(self.sized, FEW)

    @cached_property
    def _drawn(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(0)
        weights_ND = rng.dirichlet(np.ones(DOMAINS), size=TRIALS)
        slopes_DM = rng.uniform(-2.0, 0.0, size=(DOMAINS, TARGETS))
        noise_NM = 1e-3 * rng.standard_normal((TRIALS, TARGETS))
        return weights_ND, 2.0 + np.exp(weights_ND @ slopes_DM) + noise_NM

    @property
    def _sizes_N2(self) -> Array:
        return np.array([SIZES[n % len(SIZES)] for n in range(self.count)])
