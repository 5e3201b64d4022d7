"""Checks of a result that a proxy reports as finished.

A loss that is not a number, or too large to be squared, is a divergence, whatever the proxy calls
it. Losses on other evaluation domains than the corpus has are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mixopt.trials import MAX_LOSS, Losses, TrialResult, listed


def finite(result: TrialResult) -> TrialResult:
    """Return a result; one that is called finished with a loss that is not a number diverged."""
    curve = tuple(losses for losses in result.curve if _is_finite(losses))
    losses = result.losses
    if losses is not None and not _is_finite(losses):
        losses = None
    if result.status == "finished" and losses is None:
        reason = "the proxy reports a loss that is not finite"
        return replace(result, status="diverged", losses=None, curve=curve, reason=reason)
    return replace(result, losses=losses, curve=curve)


def on_domains(
    result: TrialResult, evaluation: Sequence[str], tasks: Sequence[str] = ()
) -> TrialResult:
    """Return a result; one that is called finished with losses on other domains or tasks failed."""
    if result.status != "finished" or result.losses is None:
        return result
    found = result.losses.nats_per_token or result.losses.bits_per_byte
    odd = sorted(set(found) ^ set(evaluation), key=str)
    of_tasks = sorted(set(result.losses.tasks) ^ set(tasks)) if result.losses.tasks else []
    if not odd and not of_tasks:
        return result
    reason = f"the proxy's losses are not those of the corpus's evaluation domains: {listed(odd)}"
    if not odd:
        reason = f"the proxy's metrics are not those of the corpus's tasks: {listed(of_tasks)}"
    return replace(result, status="failed", losses=None, curve=(), reason=reason)


def _is_finite(losses: Losses) -> bool:
    by_domain = (*losses.nats_per_token.values(), *losses.bits_per_byte.values())
    values = (*by_domain, *losses.tasks.values())
    return all(abs(value) <= MAX_LOSS for value in values)
