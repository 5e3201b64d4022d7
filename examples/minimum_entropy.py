"""A minimum entropy of the mixture: a convex limit of one's own, in one file.

    constraints:
      convex:
        "minimum_entropy:MinimumEntropy": {effective_domains: 3}

with the file's folder on PYTHONPATH; or by a name of its own, from a package with the entry point

    [project.entry-points."mixopt.constraints"]
    minimum_entropy = "minimum_entropy:MinimumEntropy"

The effective number of domains is exp(entropy): 3 if three domains have equal shares.

Shapes: N mixtures, D domains.
"""

import numpy as np

from mixopt import Mixture
from mixopt.constraints import ConvexLimit

MIN_WEIGHT = 1e-12  # weight at which the gradient is clipped: it is unbounded at 0


class MinimumEntropy(ConvexLimit):
    """The minimum effective number of domains of a mixture."""

    def __init__(self, natural: Mixture, *, effective_domains: float) -> None:
        """Limit the entropy of mixtures of the domains of `natural`."""
        if not 1 <= effective_domains <= len(natural):
            raise ValueError(
                f"effective_domains should be from 1 to {len(natural)}, got {effective_domains}"
            )
        self.effective_domains = effective_domains
        self.upper = -float(np.log(effective_domains))

    def value(self, weights_ND: np.ndarray) -> np.ndarray:
        """Return minus the entropy of each mixture, in nats, shape (N,)."""
        safe_ND = np.maximum(weights_ND, MIN_WEIGHT)
        return np.where(weights_ND > 0, safe_ND * np.log(safe_ND), 0.0).sum(axis=1)

    def gradient(self, weights_D: np.ndarray) -> np.ndarray:
        """Return the gradient of minus the entropy, shape (D,)."""
        return np.log(np.maximum(weights_D, MIN_WEIGHT)) + 1.0

    def describe(self) -> str:
        """Return the limit in a few words."""
        return f"effective domains >= {self.effective_domains:g}"

    def hint(self, value: float) -> str:
        """Return the number of effective domains that allows a value."""
        return f"allow effective_domains: {np.floor(1000 * np.exp(-value)) / 1000:g}"
