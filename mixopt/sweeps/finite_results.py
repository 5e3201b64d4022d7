"""A loss that is no number is a divergence, whatever the proxy calls it."""

from __future__ import annotations

import math
from dataclasses import replace

from mixopt.trials import Losses, TrialResult


def finite(result: TrialResult) -> TrialResult:
    """Return a result; one that is called finished with a loss that is no number diverged."""
    curve = tuple(losses for losses in result.curve if _is_finite(losses))
    losses = result.losses
    if losses is not None and not _is_finite(losses):
        losses = None
    if result.status == "finished" and losses is None:
        reason = "the proxy reports a loss that is not finite"
        return replace(result, status="diverged", losses=None, curve=curve, reason=reason)
    return replace(result, losses=losses, curve=curve)


def _is_finite(losses: Losses) -> bool:
    values = (*losses.nats_per_token.values(), *losses.bits_per_byte.values())
    return all(math.isfinite(value) for value in values)
