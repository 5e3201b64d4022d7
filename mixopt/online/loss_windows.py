"""Losses seen by a rank since the last observation, and pending sums over ranks.

A window is the steps between two observations. When it ends, its sums over the ranks begin, and
it waits until they are due; then it is checked, and becomes what the estimator is told.

The mean training loss moves when the mixture does, so each domain is compared with itself, with
its running mean over earlier windows, to notice that losses jump up whatever the mixture is.

Shapes: D domains, M evaluation domains; R rows of sums (mixopt.online.loss_sums).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from mixopt.errors import EstimatorError
from mixopt.online.contract import HeldOut, Observation
from mixopt.online.loss_sums import (
    BROKEN,
    COUNT,
    LOSS,
    ROWS,
    UNIT,
    DomainLosses,
    Reduction,
    is_first,
)
from mixopt.online.standing_plan import StreamSteps
from mixopt.system import Array, IntArray, StateFields

_MAX_SUM = 1 << 62
_PART_OF_LAST = 0.3  # of a window in a running mean


@dataclass(frozen=True, eq=False)
class LossWindow:
    """What is observed once the sums are there.

    Attributes:
        step: Its last optimiser step.
        due: The step after which it is observed.
        ends_plan: Whether a plan ended with it, so that the next is asked for.
        sums: Waits for the sums of the training losses over all ranks, shape (R, D).
        tokens_D: Tokens of each domain that were consumed.
        learning_rate: At its last step.
        held_out: Held-out losses after its last step, if they were asked for.
    """

    step: int
    due: int
    ends_plan: bool
    sums: Callable[[], IntArray]
    tokens_D: Array
    learning_rate: float
    held_out: HeldOut | None = None

    def observation(self) -> Observation:
        """Return what the estimator is told."""
        sums_RD = self.sums()
        return Observation(
            step=self.step,
            tokens_D=self.tokens_D,
            loss_sum_D=sums_RD[LOSS] / UNIT,
            loss_count_D=sums_RD[COUNT].astype(np.float64),
            held_out=self.held_out,
            learning_rate=self.learning_rate,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the window as JSON has it; waits for the sums."""
        content = vars(self) | {"sums": self.sums()}
        if self.held_out is not None:
            content["held_out"] = {n: _listed(v) for n, v in asdict(self.held_out).items()}
        return {name: _listed(value) for name, value in content.items()}

    @classmethod
    def read(cls, fields: StateFields, domains: int, evaluations: int) -> LossWindow:
        """Return the window of a state."""
        sums_RD = _sums(fields, domains)

        def held_out(name: str) -> HeldOut:
            part = fields.part(name)
            return HeldOut(part.array("losses_M", (evaluations,)), part.whole("tokens"))

        return cls(
            step=fields.whole("step"),
            due=fields.whole("due"),
            ends_plan=fields.flag("ends_plan"),
            sums=lambda: sums_RD,
            tokens_D=fields.array("tokens_D", (domains,), least=0),
            learning_rate=fields.number("learning_rate"),
            held_out=fields.maybe("held_out", held_out),
        )


class LossWindows:
    """Every rank opens and closes the same windows."""

    def __init__(self, stream: StreamSteps, *, spike: float | None, needs_losses: bool) -> None:
        self._stream, self._domains = stream, stream.sampler.domains
        self._spike, self._needs_losses = spike, needs_losses
        self._losses = DomainLosses(stream.lengths_D.tolist())
        self._recorded, self._without_losses = False, -1
        self._means_D: list[float | None] = [None] * len(self._domains)
        self._waiting: deque[LossWindow] = deque()

    @property
    def has_ended_plan(self) -> bool:
        """Whether the end of a plan is under way, so that the next is not decided yet."""
        return any(window.ends_plan for window in self._waiting)

    def record(self, losses: torch.Tensor, domain: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Add the losses of a batch of this rank; of a step that was skipped, none are counted."""
        self._losses.add(losses, domain, mask)
        self._recorded = True

    def open(self, step: int, due: int, *, ends_plan: bool, learning_rate: float) -> LossWindow:
        """End a window with a step; its sums are under way from here on."""
        tokens_D = self._stream.take_tokens(step)
        if self._needs_losses and not self._recorded and tokens_D.any():
            self._without_losses = step
        self._recorded = False
        return LossWindow(
            step=step,
            due=due,
            ends_plan=ends_plan,
            sums=Reduction(self._losses.take()).result,
            tokens_D=tokens_D,
            learning_rate=learning_rate,
        )

    def wait_for(self, window: LossWindow) -> None:
        """Keep a window until it is due."""
        self._waiting.append(window)

    def next_due(self, step: int) -> LossWindow | None:
        """Return the first window that is due, and those before it; None where none is."""
        if any(window.due <= step for window in self._waiting):
            return self._waiting.popleft()
        return None

    def trouble(self, window: LossWindow) -> str | None:
        """Return what is wrong with the losses of a window; None if nothing is."""
        if window.step == self._without_losses:
            raise EstimatorError(
                f"no losses were recorded up to step {window.step}: call"
                " record(losses, batch['domain']) for each batch"
            )
        sums_RD = window.sums()
        if sums_RD[BROKEN].any():
            d = int(np.argmax(sums_RD[BROKEN]))
            return (
                f"domain {self._domains[d]!r}: {sums_RD[BROKEN][d]} losses up to step"
                f" {window.step} are not finite"
            )
        rise = self._rise(sums_RD[LOSS].tolist(), sums_RD[COUNT].tolist())
        if self._spike is None or rise <= self._spike:
            return None
        return f"losses rose by {rise:.3g} nats up to step {window.step}; spike is {self._spike:g}"

    def _rise(self, units_D: Sequence[int], counts_D: Sequence[int]) -> float:
        """Return by how much losses are above their running means, nats per token; update these."""
        rises, tokens = [], 0
        for d, (units, count) in enumerate(zip(units_D, counts_D, strict=True)):
            if not count:
                continue
            loss, mean = units / (UNIT * count), self._means_D[d]
            if mean is None:
                self._means_D[d] = loss
                continue
            rises.append(count * (loss - mean))
            tokens += count
            self._means_D[d] = mean + _PART_OF_LAST * (loss - mean)
        return math.fsum(rises) / max(tokens, 1)

    def clear(self) -> None:
        """Forget what was seen; nothing more need be recorded before the next window."""
        self._waiting.clear()
        self._losses.take()
        self._recorded = True

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, over all ranks; every rank has to call it."""
        return {
            "waiting": [window.to_json() for window in self._waiting],
            "sums": Reduction(self._losses.peek()).result().tolist(),
            "means": self._means_D,
        }

    def read(self, fields: StateFields, domains: int, evaluations: int) -> Callable[[], None]:
        """Check a state; return what resumes from it. Rank 0 keeps what all of them had seen."""
        waiting = [LossWindow.read(one, domains, evaluations) for one in fields.parts("waiting")]
        sums_RD = _sums(fields, domains)
        listed = {str(d): value for d, value in enumerate(fields.listed("means", domains))}
        means = StateFields(listed, f"{fields.where}: means", EstimatorError)
        means_D = [means.maybe(d, means.number) for d in listed]

        def use() -> None:
            self.clear()
            self._waiting.extend(waiting)
            self._means_D = means_D
            if is_first():
                self._losses.put(torch.from_numpy(sums_RD))

        return use


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _sums(fields: StateFields, domains: int) -> IntArray:
    return fields.int_array("sums", (ROWS, domains), least=-_MAX_SUM)
