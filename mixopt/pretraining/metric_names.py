"""Names of a run's metrics on a server (mixopt.pretraining.metrics)."""

from __future__ import annotations

from collections.abc import Sequence


def line_names(domains: Sequence[str], evaluations: Sequence[str]) -> list[str]:
    """Return the names that lines of a run can have, as MLflow has them.

    Args:
        domains: Of training.
        evaluations: Whose held-out losses are measured.
    """
    single = ("tokens", "loss", "learning_rate", "gradient_norm", "skipped", "tokens_per_second")
    balance = ("auxiliary_loss", "expert_bias/largest", "expert_bias/moved")
    by_domain = [f"{n}/{d}" for n in ("train_loss", "weight", "realised") for d in domains]
    held_out = [
        f"{n}/{e}" for n in ("held_out_loss", "held_out_bits_per_byte") for e in evaluations
    ]
    return [*single, "mfu", "z_loss", *balance, *by_domain, *held_out]
