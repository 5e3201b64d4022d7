"""The result of a run, for the command line and for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PretrainResult:
    """A run as its last checkpoint has it.

    Attributes:
        path: The run directory.
        step: Steps taken.
        steps: Steps of the whole run.
        tokens: Tokens trained on.
        skipped: Steps that were skipped because a loss or gradient was not finite.
        weights: The mixture of the next batch.
        losses: Held-out losses when they were last evaluated, nats per token.
        checkpoint: The folder of the last checkpoint.
        interrupted: Whether Ctrl-C stopped it before its end.
    """

    path: Path
    step: int
    steps: int
    tokens: int
    skipped: int
    weights: Mapping[str, float]
    losses: Mapping[str, float]
    checkpoint: Path
    interrupted: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.steps

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {
            "directory": str(self.path),
            "finished": self.is_finished,
            "step": self.step,
            "steps": self.steps,
            "tokens": self.tokens,
            "skipped": self.skipped,
            "weights": dict(self.weights),
            "losses": dict(self.losses),
            "checkpoint": str(self.checkpoint),
        }


def result_lines(result: PretrainResult) -> list[str]:
    """Return a table for a terminal."""
    names = [*result.weights, *(name for name in result.losses if name not in result.weights)]
    width = max(len("domain"), *(len(name) for name in names))
    lines = [f"{'domain':<{width}}   weight   held-out loss (nats per token)"]
    for name in names:
        weight = f"{result.weights[name]:8.2%}" if name in result.weights else f"{'-':>8}"
        loss = f"{result.losses[name]:.4f}" if name in result.losses else "-"
        lines.append(f"{name:<{width}} {weight}   {loss}")
    skipped = f", {result.skipped} of them skipped" if result.skipped else ""
    lines.append(f"{result.step:,} of {result.steps:,} steps{skipped}, {result.tokens:,} tokens")
    return lines
