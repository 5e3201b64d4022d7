"""The realised shares of a mixture by the names that trainers log them under."""

from __future__ import annotations

from mixopt.loading import MixtureLoader


def share_metrics(mixture: MixtureLoader) -> dict[str, float]:
    """Return `mixture/<domain>`, the share of the tokens so far."""
    shares = mixture.realised().shares
    if not any(shares.values()):
        return {}
    return {f"mixture/{name}": share for name, share in shares.items()}
