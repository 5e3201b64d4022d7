"""Limit the distance to a reference mixture, in KL divergence or total variation.

Total variation, half the sum of absolute differences, is the share of the tokens that change
domain. KL(w || r) = sum_j w_j log(w_j / r_j), in nats, depends on how many times over a domain is
raised: a rare one may not become common, and one that the reference lacks stays out.

Shapes: N mixtures, D domains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mixopt.constraints.limits import up
from mixopt.mixture import Mixture, total_variation
from mixopt.system import Array

Distance = Literal["kl", "tv"]
SOURCE = "constraints.radius"
WORDS = {"kl": "KL divergence", "tv": "total variation"}
NEAR = 2e-3  # share of the radius within which a mixture counts as held by it
MISSED = 1e-6  # share of the radius by which the least distance may be missed
SMALLEST = 1e-12  # weight below which a slope stays what it is there: at 0 it has no bound


@dataclass(frozen=True)
class Radius:
    """The largest allowed distance of a mixture from a reference.

    Attributes:
        reference: The mixture in the middle.
        name: What the reference is called.
        kind: `kl`, in nats, or `tv`, in [0, 1].
        size: The most, > 0.
        reference_D: Weights of the reference, shape (D,).
    """

    reference: Mixture
    name: str
    kind: Distance
    size: float
    reference_D: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        reference_D = self.reference.array
        reference_D.flags.writeable = False
        object.__setattr__(self, "reference_D", reference_D)

    def distance(self, weights_ND: ArrayLike) -> Array:
        """Return how far each mixture is from the reference, shape (N,)."""
        weights = np.asarray(weights_ND, dtype=np.float64)
        if self.kind == "tv":
            return total_variation(weights, self.reference_D)
        return self._divergence(np.maximum(weights, 0.0))

    def allows(self, distance: float) -> bool:
        """Tell whether a least distance is within the radius, to the accuracy of finding it."""
        return bool(distance <= self.size * (1.0 + MISSED) + MISSED**1.5)

    def slope(self, weights_D: Array) -> Array:
        """Return the gradient of the divergence at a mixture, shape (D,); for `kl`."""
        safe_D = np.where(self.reference_D > 0, self.reference_D, 1.0)
        slope_D = np.log(np.maximum(weights_D, SMALLEST) / safe_D) + 1.0
        return np.where(self.reference_D > 0, slope_D, 0.0)

    def refusal(self, mixture: Mixture, tolerance: float) -> str | None:
        """Say why a mixture is not allowed, and how to fix it; None where it is."""
        away = float(self.distance(mixture.over(self.reference.domains).array[None])[0])
        if away <= self.size + tolerance:
            return None
        allow = f", or allow {self.kind}: {up(away)}" if np.isfinite(away) else ""
        return (
            f"the mixture is {away:.4g} ({WORDS[self.kind]}) from {self.name}; "
            f"{SOURCE}.{self.kind} is {self.size:g}. Move it closer{allow}."
        )

    def binding(self, mixture: Mixture) -> list[str]:
        """Name the radius where it is an active constraint."""
        away = float(self.distance(mixture.over(self.reference.domains).array[None])[0])
        return [f"{self.text} ({SOURCE})"] if abs(away - self.size) <= NEAR * self.size else []

    @property
    def text(self) -> str:
        """The limit in short."""
        return f"{WORDS[self.kind]} from {self.name} <= {self.size:.3g}"

    def _divergence(self, weights_ND: Array) -> Array:
        safe_D = np.where(self.reference_D > 0, self.reference_D, 1.0)
        ratio_ND = np.where(weights_ND > 0, weights_ND, 1.0) / safe_D
        terms_ND = weights_ND * np.where(weights_ND > 0, np.log(ratio_ND), 0.0)
        outside_N = (weights_ND[:, self.reference_D == 0] > SMALLEST).any(axis=1)
        divergence: Array = np.where(outside_N, np.inf, terms_ND.sum(axis=1))
        return divergence
