"""Mixtures that are known beforehand, with what the loop asks of an estimator's driver.

The sampler was told of them when it was made; what is left to do is to write the mixture log.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mixopt.mixture import Mixture
from mixopt.online import MixtureLog
from mixopt.pretraining.mixture_input import Scheduled


class FixedMixture:
    """Writes a line of the mixture log when a mixture begins to hold."""

    def __init__(self, known: Scheduled, log: Path) -> None:
        """Begin before the first step.

        Args:
            known: First batch, mixture and source of each, in order; the first from batch 0.
            log: The mixture log.
        """
        self._known = {batch: (mixture, why) for batch, mixture, why in known}
        self._domains = list(known[0][1])
        self._log = MixtureLog(log)
        self._step, self._is_fresh, self._is_changed = 0, True, False

    def start(self) -> None:
        """Write the mixture that the run starts from, or goes on with where domains changed."""
        if self._is_fresh:
            self._log.cut(0)
            self._write()
        elif self._is_changed:
            before = max(batch for batch in self._known if batch <= self._step)
            self._write_line(self._known[before][0], "domains changed")

    def record(self, losses: Tensor, domain: Tensor, mask: Tensor | None = None) -> None:
        """Nothing depends on losses."""

    def step(self, *, learning_rate: float) -> None:
        """Note an optimiser step."""
        self._step += 1
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were taken and how long the log is."""
        return {"step": self._step, "domains": self._domains, "log_size": self._log.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; what the log has after it is cut off."""
        self._step, self._is_fresh = state["step"], False
        self._is_changed = state["domains"] != self._domains
        self._log.cut(state["log_size"])

    def _write(self) -> None:
        if self._step in self._known:
            self._write_line(*self._known[self._step])

    def _write_line(self, mixture: Mixture, why: str) -> None:
        self._log.write(self._step, self._step + 1, mixture, why, shadow=False)
