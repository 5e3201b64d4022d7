"""Emulate a fit in the page: for regressors whose law the page's scripts do not implement.

The fit predicts a few thousand mixtures that the sliders reach. The page interpolates losses and
standard deviations by a polyharmonic spline in the square roots of the weights,

    f(w) = b . (1, w, roots) + sum_p a_p |roots - roots_p|^3,    roots = sqrt(w)

so that laws linear in weights or in their roots are exact. The roots of a point are integers of 8
bits, scaled to length 1: the mixture of a point is exactly what the page reads. Errors are measured
at other mixtures that the sliders reach, with the numbers that the page gets.

Shapes: S starts, D domains, P points, K mixtures, M losses, C = 2 M columns (losses, standard
deviations), T = 1 + 2 D terms beside the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import PluginError
from mixopt.system import Array, IntArray

TOPS = (0.1, 0.2, 0.3, 0.5, 1.0)  # shares at which a slider may end
ROOM = 1.4  # smallest ratio of a slider's end to the largest share at a start
POINTS = 2000
MAX_KNOTS = 24  # on the segment of one slider
SEVERAL = 5  # moves after which errors are measured, and the most between a start and a point
HELD_OUT = 500  # mixtures for each error
LARGEST_ROOT = 255
RIDGE = 1e-9  # of the terms beside the kernel, which depend on each other: weights add up to 1
MAX_ERROR = 0.25  # of the spread, after one move; a fit with a larger one is not emulated

Predict = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Sliders:
    """The mixtures that the page's sliders reach, as moveShare in assets/what_if.js moves them.

    Attributes:
        starts_SD: The mixtures that the page starts from.
        natural_D: Proportions of domains that all have nothing when they make room.
        phases_D: Phase of each domain; only domains of one phase make room for each other.
    """

    starts_SD: Array
    natural_D: Array
    phases_D: IntArray

    @property
    def top(self) -> float:
        """The share at which sliders end."""
        needed = ROOM * float(self.starts_SD.max())
        return min((top for top in TOPS if top >= needed), default=TOPS[-1])

    def moved(self, weights_KD: Array, domain_K: IntArray, share_K: Array) -> Array:
        """Give one domain of each mixture a share; others of its phase change in proportion."""
        row_K = np.arange(len(weights_KD))
        makes_room_KD = self.phases_D == self.phases_D[domain_K][:, None]
        makes_room_KD[row_K, domain_K] = False
        others_KD = np.where(makes_room_KD, weights_KD, 0.0)
        free_K = others_KD.sum(axis=1) + weights_KD[row_K, domain_K]
        is_empty_K1 = others_KD.sum(axis=1, keepdims=True) <= 0
        others_KD = np.where(is_empty_K1 & makes_room_KD, self.natural_D, others_KD)
        total_K = others_KD.sum(axis=1)
        share_K = np.where(total_K > 0, np.minimum(share_K, free_K), free_K)
        left_K = (free_K - share_K) / np.where(total_K > 0, total_K, 1.0)
        moved_KD = np.where(makes_room_KD, others_KD * left_K[:, None], weights_KD)
        moved_KD[row_K, domain_K] = share_K
        return moved_KD

    def segments(self, knots: int) -> Array:
        """Return each slider at some shares from each start, denser near 0, shape (K, D)."""
        starts, domains = self.starts_SD.shape
        shares = self.top * np.linspace(0.0, 1.0, knots) ** 2
        start_K, domain_K, share_K = np.meshgrid(
            np.arange(starts), np.arange(domains), shares, indexing="ij"
        )
        return self.moved(self.starts_SD[start_K.ravel()], domain_K.ravel(), share_K.ravel())

    def walks(self, moves_K: IntArray, rng: np.random.Generator) -> Array:
        """Return mixtures after some moves of random sliders, shape (K, D)."""
        count = len(moves_K)
        starts, domains = self.starts_SD.shape
        weights_KD = self.starts_SD[rng.integers(starts, size=count)]
        for move in range(moves_K.max(initial=0)):
            domain_K = rng.integers(domains, size=count)
            share_K = self._shares(weights_KD[np.arange(count), domain_K], rng)
            moves_on_K1 = (move < moves_K)[:, None]
            weights_KD = np.where(
                moves_on_K1, self.moved(weights_KD, domain_K, share_K), weights_KD
            )
        return weights_KD

    def _shares(self, share_K: Array, rng: np.random.Generator) -> Array:
        """Draw new shares: half near the present one, the others anywhere, a few of them 0."""
        kind_K = rng.random(len(share_K))
        near_K = share_K * np.exp(rng.uniform(-1.5, 1.0, len(share_K)))
        anywhere_K = self.top * rng.random(len(share_K))
        drawn_K = np.where(kind_K < 0.5, near_K, np.where(kind_K < 0.95, anywhere_K, 0.0))
        return np.minimum(drawn_K, self.top)


class Errors(NamedTuple):
    """The largest errors of an emulator.

    Attributes:
        losses: Of a loss, over its spread: the larger of the standard deviation of its predictions
            over the held-out mixtures and the fit's typical standard deviation.
        stds: Of a standard deviation, over itself.
    """

    losses: float
    stds: float


@dataclass(frozen=True, eq=False)
class Emulator:
    """An interpolant of a fit's predictions.

    Attributes:
        points_PD: Roots of the points, unscaled.
        kernel_PC: Coefficients of the kernel.
        terms_TC: Coefficients of 1, weights and roots.
        smallest_M: Smallest standard deviation at a point; none is emulated below it.
        errors: By the moves of sliders between a start and the held-out mixtures.
    """

    points_PD: NDArray[np.uint8]
    kernel_PC: NDArray[np.float32]
    terms_TC: NDArray[np.float32]
    smallest_M: Array
    errors: Mapping[int, Errors]

    @classmethod
    def of(cls, predict: Predict, sliders: Sliders, seed: int = 0) -> Emulator:
        """Interpolate predictions, which are losses and deviations, shape (K, M) each.

        Raises:
            PluginError: A prediction is not finite.
        """
        rng = np.random.default_rng(seed)
        points_PD = _points(sliders, rng)
        losses_PM, stds_PM = predict(_roots(points_PD) ** 2)
        columns_PC = np.hstack([losses_PM, stds_PM])
        if not np.isfinite(columns_PC).all():
            raise PluginError("the what-if is left out: some predictions are not finite")
        kernel_PC, terms_TC = _solved(points_PD, columns_PC)
        emulator = cls(points_PD, kernel_PC, terms_TC, stds_PM.min(axis=0), {})
        held_out = {moves: sliders.walks(np.full(HELD_OUT, moves), rng) for moves in (1, SEVERAL)}
        errors = {moves: emulator.error(predict, rows) for moves, rows in held_out.items()}
        return replace(emulator, errors=errors)

    def predict(self, weights_KD: Array) -> tuple[Array, Array]:
        """Return losses and standard deviations, shape (K, M) each, as the page computes them."""
        roots_KD = np.sqrt(np.maximum(weights_KD, 0.0))
        columns_KC = _kernel(roots_KD, _roots(self.points_PD)) @ self.kernel_PC.astype(float)
        columns_KC += _terms(roots_KD) @ self.terms_TC.astype(float)
        losses_KM, stds_KM = np.hsplit(columns_KC, 2)
        return losses_KM, np.maximum(stds_KM, self.smallest_M)

    def error(self, predict: Predict, weights_KD: Array) -> Errors:
        """Return the largest errors at some mixtures."""
        losses_KM, stds_KM = predict(weights_KD)
        emulated_KM, emulated_stds_KM = self.predict(weights_KD)
        spread_M = np.maximum(losses_KM.std(axis=0), np.median(stds_KM, axis=0))
        return Errors(
            _largest(emulated_KM - losses_KM, spread_M),
            _largest(emulated_stds_KM - stds_KM, stds_KM),
        )

    def plain_law(self) -> dict[str, Any]:
        """Return the law of kind `emulated` for assets/law_emulated.js."""
        return {
            "kind": "emulated",
            "points_PD": self.points_PD,
            "kernel_PC": self.kernel_PC,
            "terms_TC": self.terms_TC,
            "smallest_M": self.smallest_M,
        }


def _points(sliders: Sliders, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return half of the points on segments of one slider, half after several moves."""
    knots = int(np.clip(POINTS // (2 * sliders.starts_SD.size), 3, MAX_KNOTS))
    segments_KD = sliders.segments(knots)
    count = max(POINTS - len(segments_KD), POINTS // 4)
    walks_KD = sliders.walks(rng.integers(2, SEVERAL + 1, size=count), rng)
    roots_KD = np.sqrt(np.vstack([sliders.starts_SD, segments_KD, walks_KD]))
    return np.unique(np.round(LARGEST_ROOT * roots_KD).astype(np.uint8), axis=0)


def _roots(points_PD: NDArray[np.uint8]) -> Array:
    lengths_P1 = np.linalg.norm(points_PD.astype(float), axis=1, keepdims=True)
    return np.asarray(points_PD / lengths_P1)


def _kernel(roots_KD: Array, others_PD: Array) -> Array:
    """Return cubed distances of rows of length 1, shape (K, P)."""
    squared_KP = np.maximum(2.0 - 2.0 * roots_KD @ others_PD.T, 0.0)
    return np.asarray(squared_KP**1.5)


def _terms(roots_KD: Array) -> Array:
    return np.hstack([np.ones((len(roots_KD), 1)), roots_KD**2, roots_KD])


def _solved(
    points_PD: NDArray[np.uint8], columns_PC: Array
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the coefficients of kernel and terms, in the precision that the page gets."""
    roots_PD = _roots(points_PD)
    terms_PT = _terms(roots_PD)
    below_TT = -RIDGE * np.eye(terms_PT.shape[1])
    matrix = np.block([[_kernel(roots_PD, roots_PD), terms_PT], [terms_PT.T, below_TT]])
    padding_TC = np.zeros((terms_PT.shape[1], columns_PC.shape[1]))
    solved = np.linalg.solve(matrix, np.vstack([columns_PC, padding_TC])).astype(np.float32)
    return solved[: len(roots_PD)], solved[len(roots_PD) :]


def _largest(errors_KM: Array, unit: Array) -> float:
    """Return the largest error in a unit; an error of 0 is 0 in a unit of 0, too."""
    shares_KM = np.abs(errors_KM) / np.maximum(unit, np.finfo(float).tiny)
    return float(np.where(errors_KM == 0, 0.0, shares_KM).max())
