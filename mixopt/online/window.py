"""A window: the steps between two observations, whose sums may still be under way.

Shapes: D domains, M evaluation domains; R rows of sums (mixopt.online.domain_losses).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from mixopt.online.contract import HeldOut, Observation
from mixopt.online.domain_losses import COUNT, EXCESS, LOSS, UNIT
from mixopt.system import Array, IntArray

Sums = IntArray


class Result(Protocol):
    """What gives the sums over all ranks, shape (R, D), once they are there."""

    def result(self) -> Sums:
        """Wait for them."""
        ...


@dataclass(frozen=True)
class Known:
    """Sums that are there."""

    sums_RD: Sums

    def result(self) -> Sums:
        """Return them."""
        return self.sums_RD


@dataclass(frozen=True)
class Window:
    """What is observed once the sums are there.

    Attributes:
        step: Its last optimiser step.
        due: The step after which it is observed.
        ends_plan: Whether a plan ended with it, so that the next is asked for.
        sums: The training losses.
        tokens_D: Tokens of each domain that were consumed.
        learning_rate: At its last step.
        held_out: Held-out losses after its last step, if they were asked for.
        alignment_D: Mean alignment of each domain's gradient, where the loop records it.
    """

    step: int
    due: int
    ends_plan: bool
    sums: Result
    tokens_D: Array
    learning_rate: float
    held_out: HeldOut | None = None
    alignment_D: Array | None = None

    def observation(self) -> Observation:
        """Return what the estimator is told."""
        sums_RD = self.sums.result()
        return Observation(
            step=self.step,
            tokens_D=self.tokens_D,
            loss_sum_D=sums_RD[LOSS] / UNIT,
            loss_count_D=sums_RD[COUNT].astype(np.float64),
            held_out=self.held_out,
            excess_sum_D=sums_RD[EXCESS] / UNIT,
            alignment_D=self.alignment_D,
            learning_rate=self.learning_rate,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the window as JSON has it; waits for the sums."""
        fields = {name: getattr(self, name) for name in ("step", "due", "ends_plan")}
        return fields | {
            "sums": self.sums.result().tolist(),
            "tokens": self.tokens_D.tolist(),
            "learning_rate": self.learning_rate,
            "held_out": None if self.held_out is None else _listed(asdict(self.held_out)),
            "alignment": None if self.alignment_D is None else self.alignment_D.tolist(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Window:
        """Return the window of `to_json`."""
        held, alignment = content["held_out"], content["alignment"]
        return cls(
            step=content["step"],
            due=content["due"],
            ends_plan=content["ends_plan"],
            sums=Known(np.array(content["sums"], np.int64)),
            tokens_D=np.array(content["tokens"], np.float64),
            learning_rate=content["learning_rate"],
            held_out=None
            if held is None
            else HeldOut(np.array(held["losses_M"]), np.array(held["errors_M"]), held["tokens"]),
            alignment_D=None if alignment is None else np.array(alignment, np.float64),
        )


def _listed(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in fields.items()
    }
