"""Keep a proposal away from trials in which the experts of the proxy collapsed.

Which experts collapse is not a number that a regressor could predict from expert to expert: they
are others in each trial. What is known is where it happened. So a mixture is allowed where the
nearest trial (total variation) is one whose experts did not collapse.

Shapes: N mixtures, K trials, D domains.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixopt.errors import ConfigError
from mixopt.mixture import pairwise_total_variation
from mixopt.system import Array

if TYPE_CHECKING:
    from mixopt.trials import Trials

SOURCE = "constraints.guardrails.experts"
NEAR = 1e-3  # in total variation, within which it counts as holding a proposal


@dataclass(frozen=True, eq=False)
class Avoided:
    """The mixtures of trials whose experts collapsed, and of the others.

    Attributes:
        collapsed_KD: Mixtures of the first.
        others_KD: Mixtures of the others.
    """

    collapsed_KD: Array
    others_KD: Array

    @classmethod
    def of(cls, trials: Trials, collapsed: Collection[str] | None) -> Avoided:
        """Sort the finished trials.

        Args:
            trials: The trials.
            collapsed: Names of those whose experts collapsed; None where trials have no experts.

        Raises:
            ConfigError: Trials have no experts, or they collapsed in all of them.
        """
        if collapsed is None:
            raise ConfigError(
                f"{SOURCE}: the trials have no experts; leave it out, or use a proxy that has "
                "experts (decoder with proxy.options.size: moe-tiny)"
            )
        done = trials.finished
        marked_K = np.array([name in collapsed for name in done.table["trial"]])
        if marked_K.all():
            raise ConfigError(
                f"{SOURCE}: the experts of all {len(marked_K)} trials collapsed, so no mixture "
                "satisfies it; balance the router (proxy.options), or leave it out"
            )
        weights_KD = done.weights()
        return cls(weights_KD[marked_K], weights_KD[~marked_K])

    def excess(self, weights_ND: Array) -> Array:
        """Return by how much nearer a collapsed trial is than another, shape (N,).

        Below or at 0 a mixture may be proposed.
        """
        if not len(self.collapsed_KD):
            return np.full(len(weights_ND), -1.0)
        to_collapsed_N = pairwise_total_variation(weights_ND, self.collapsed_KD).min(axis=1)
        to_others_N = pairwise_total_variation(weights_ND, self.others_KD).min(axis=1)
        excess_N: Array = to_others_N - to_collapsed_N
        return excess_N

    def binding(self, weights_D: Array) -> list[str]:
        """Name the guardrail where it holds a mixture."""
        if self.excess(weights_D[None])[0] < -NEAR:
            return []
        return [f"a trial whose experts collapsed is as near as any other ({SOURCE})"]
