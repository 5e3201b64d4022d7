"""Notice that losses jump up, whatever the mixture is.

The mean training loss moves when the mixture does, so each domain is compared with itself: with
its running mean over earlier windows. Plain Python floats, so that every rank says the same.

Shapes: D domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mixopt.online.domain_losses import UNIT

_PART_OF_LAST = 0.3  # of a window in the running mean


class LossGuard:
    """The running mean of each domain's loss, and how much a window may be above it."""

    def __init__(self, domains: int, spike: float | None) -> None:
        """Begin with nothing seen.

        Args:
            domains: How many there are.
            spike: Nats per token by which losses may rise from their running means; None for any.
        """
        self.means_D: list[float | None] = [None] * domains
        self._spike = spike

    def check(self, units_D: Sequence[int], counts_D: Sequence[int], step: int) -> str | None:
        """Take in a window; say what is wrong with it, or None.

        Args:
            units_D: Sum of the losses of each domain, in mixopt.online.domain_losses.UNIT.
            counts_D: Tokens in it.
            step: Its last step.
        """
        rises, tokens = [], 0
        for d, (units, count) in enumerate(zip(units_D, counts_D, strict=True)):
            if not count:
                continue
            loss, mean = units / (UNIT * count), self.means_D[d]
            if mean is None:
                self.means_D[d] = loss
                continue
            rises.append(count * (loss - mean))
            tokens += count
            self.means_D[d] = mean + _PART_OF_LAST * (loss - mean)
        rise = math.fsum(rises) / max(tokens, 1)
        if self._spike is None or rise <= self._spike:
            return None
        return f"losses rose by {rise:.3g} nats up to step {step}; spike is {self._spike:g}"
