"""What a rank has seen since the last window, and the windows whose sums are under way.

Shapes: D domains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mixopt.errors import EstimatorError
from mixopt.online.contract import Setting
from mixopt.online.domain_losses import BROKEN, COUNT, LOSS, DomainLosses
from mixopt.online.loss_guard import LossGuard
from mixopt.online.reduce import Reduction, is_first
from mixopt.online.stream_steps import StreamSteps
from mixopt.online.window import Window
from mixopt.system import Array


class Watch:
    """Every rank opens and closes the same windows."""

    def __init__(
        self, stream: StreamSteps, setting: Setting, *, spike: float | None, needs_losses: bool
    ) -> None:
        """Begin with nothing seen.

        Args:
            stream: Knows what was consumed.
            setting: The domains.
            spike: Rise of losses in nats per token that is too much; None for any.
            needs_losses: Whether a window without losses is an error.
        """
        self._stream, self._domains = stream, setting.domains
        self._needs_losses = needs_losses
        self._losses = DomainLosses(stream.lengths_D.tolist())
        self._recorded, self._without_losses = False, -1
        self._guard = LossGuard(len(setting.domains), spike)
        self._alignments: list[Array] = []
        self._windows: deque[Window] = deque()

    @property
    def has_ended_plan(self) -> bool:
        """Whether the end of a plan is under way, so that the next is not decided yet."""
        return any(window.ends_plan for window in self._windows)

    def record(
        self,
        losses: torch.Tensor,
        domain: torch.Tensor,
        mask: torch.Tensor | None,
        reference_losses: torch.Tensor | None,
    ) -> None:
        """Add the losses of a batch of this rank; of a step that was skipped, none are counted."""
        self._losses.add(losses, domain, mask, reference_losses)
        self._recorded = True

    def add_alignment(self, values_D: Any) -> None:
        """Add alignments, the same on every rank, shape (D,).

        Raises:
            EstimatorError: Another shape.
        """
        values = np.asarray(values_D, np.float64)
        if values.shape != (len(self._domains),):
            raise EstimatorError(
                f"record_alignment: shape {values.shape}; it takes ({len(self._domains)},)"
            )
        self._alignments.append(values)

    def open(self, step: int, due: int, *, ends_plan: bool, learning_rate: float) -> Window:
        """End a window with a step; its sums are under way from here on."""
        tokens_D = self._stream.take_tokens(step)
        if self._needs_losses and not self._recorded and tokens_D.any():
            self._without_losses = step
        self._recorded = False
        alignments, self._alignments = self._alignments, []
        return Window(
            step=step,
            due=due,
            ends_plan=ends_plan,
            sums=Reduction(self._losses.take()),
            tokens_D=tokens_D,
            learning_rate=learning_rate,
            alignment_D=np.mean(alignments, axis=0) if alignments else None,
        )

    def wait_for(self, window: Window) -> None:
        """Keep a window until it is due."""
        self._windows.append(window)

    def next_due(self, step: int) -> Window | None:
        """Return the first window that is due, and those before it; None where none is."""
        if any(window.due <= step for window in self._windows):
            return self._windows.popleft()
        return None

    def trouble(self, window: Window) -> str | None:
        """Say what is wrong with the losses of a window; None if nothing is.

        Raises:
            EstimatorError: Samples were consumed, and no losses recorded.
        """
        if window.step == self._without_losses:
            raise EstimatorError(
                f"no losses were recorded up to step {window.step}: call"
                " record(losses, batch['domain']) for each batch"
            )
        sums_RD = window.sums.result()
        if sums_RD[BROKEN].any():
            d = int(np.argmax(sums_RD[BROKEN]))
            return (
                f"domain {self._domains[d]!r}: {sums_RD[BROKEN][d]} losses up to step"
                f" {window.step} are not finite"
            )
        return self._guard.check(sums_RD[LOSS].tolist(), sums_RD[COUNT].tolist(), window.step)

    def clear(self) -> None:
        """Forget what was seen; nothing more need be recorded before the next window."""
        self._windows.clear()
        self._alignments.clear()
        self._losses.take()
        self._recorded = True

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, over all ranks; every rank has to call it."""
        return {
            "windows": [window.to_json() for window in self._windows],
            "sums": Reduction(self._losses.peek()).result().tolist(),
            "alignments": [values.tolist() for values in self._alignments],
            "means": self._guard.means_D,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same domains; rank 0 keeps what all of them had seen."""
        self.clear()
        self._windows.extend(map(Window.from_json, state["windows"]))
        self._alignments = [np.array(values) for values in state["alignments"]]
        self._guard.means_D = list(state["means"])
        if is_first():
            self._losses.put(torch.tensor(state["sums"], dtype=torch.int64))
