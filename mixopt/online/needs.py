"""Check that a loop gives an estimator what it needs, before training begins."""

from __future__ import annotations

from collections.abc import Collection

from mixopt.errors import EstimatorError, did_you_mean
from mixopt.online.contract import Estimator, Need

_HOW: dict[str, str] = {
    "held_out": "held-out losses: Driver(evaluate=), which returns"
    " {name: (loss_sum, tokens)} of this rank",
    "excess_loss": "the losses of a reference model: record(..., reference_losses=), and say so"
    " with Driver(gives=['excess_loss'])",
    "alignment": "inner products of gradients: record_alignment(values_D), and say so with"
    " Driver(gives=['alignment'])",
}
GIVABLE = ("excess_loss", "alignment")


def check_needs(estimator: Estimator, gives: Collection[Need], *, evaluates: bool) -> None:
    """Compare what an estimator needs with what the loop gives.

    Args:
        estimator: The estimator.
        gives: Of `GIVABLE`, what the loop records besides losses.
        evaluates: Whether the loop can evaluate held-out text.

    Raises:
        EstimatorError: Something is missing; the message says how to give it.
    """
    for need in gives:
        if need not in GIVABLE:
            raise EstimatorError(f"gives: {need!r}{did_you_mean(need, GIVABLE)}")
    given = {"training_loss", *gives, *(["held_out"] if evaluates else [])}
    for need in sorted(estimator.needs):
        if need not in given:
            how = _HOW.get(need, f"{need!r}, which this driver does not know")
            raise EstimatorError(f"{type(estimator).__name__} needs {how}")
