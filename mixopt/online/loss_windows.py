"""Losses seen by a rank since the last observation, and what is wrong with them over all ranks.

The mean training loss moves when the mixture does, so each domain is compared with itself, with
its running mean over earlier windows, to notice that losses jump up whatever the mixture is.

Shapes: D domains; R rows of sums (mixopt.online.loss_sums).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mixopt.errors import EstimatorError
from mixopt.online.contract import Observation
from mixopt.online.loss_sums import BROKEN, COUNT, LOSS, ROWS, UNIT, DomainLosses, is_first, summed
from mixopt.online.standing_plan import StreamSteps
from mixopt.system import StateFields

_MAX_SUM = 1 << 62
_PART_OF_LAST = 0.3  # of a window in a running mean


class LossWindows:
    """The steps between two observations, again and again; every rank closes the same windows."""

    def __init__(self, stream: StreamSteps, *, spike: float | None, needs_losses: bool) -> None:
        self._stream, self._domains = stream, stream.sampler.domains
        self._spike, self._needs_losses = spike, needs_losses
        self._losses = DomainLosses(stream.lengths_D.tolist())
        self._recorded = False
        self._means_D: list[float | None] = [None] * len(self._domains)

    def record(self, losses: torch.Tensor, domain: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Add the losses of a batch of this rank; of a step that was skipped, none are counted."""
        self._losses.add(losses, domain, mask)
        self._recorded = True

    def close(self, step: int, learning_rate: float) -> Observation | str:
        """End a window with a step; return what was seen, or what is wrong with it."""
        tokens_D = self._stream.take_tokens(step)
        if self._needs_losses and not self._recorded and tokens_D.any():
            raise EstimatorError(
                f"no losses were recorded up to step {step}: call record(losses, batch['domain'])"
                " for each batch"
            )
        self._recorded = False
        sums_RD = summed(self._losses.take())
        if sums_RD[BROKEN].any():
            d = int(np.argmax(sums_RD[BROKEN]))
            return (
                f"domain {self._domains[d]!r}: {sums_RD[BROKEN][d]} losses up to step {step} are"
                " not finite"
            )
        rise = self._rise(sums_RD[LOSS].tolist(), sums_RD[COUNT].tolist())
        if self._spike is not None and rise > self._spike:
            return f"losses rose by {rise:.3g} nats up to step {step}; spike is {self._spike:g}"
        return Observation(
            step=step,
            tokens_D=tokens_D,
            loss_sum_D=sums_RD[LOSS] / UNIT,
            loss_count_D=sums_RD[COUNT].astype(np.float64),
            learning_rate=learning_rate,
        )

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
        self._losses.take()
        self._recorded = True

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, over all ranks; every rank has to call it."""
        return {"sums": summed(self._losses.peek()).tolist(), "means": self._means_D}

    def read(self, fields: StateFields) -> Callable[[], None]:
        """Check a state; return what resumes from it. Rank 0 keeps what all of them had seen."""
        domains = len(self._domains)
        sums_RD = fields.int_array("sums", (ROWS, domains), least=-_MAX_SUM)
        listed = {str(d): value for d, value in enumerate(fields.listed("means", domains))}
        means = StateFields(listed, f"{fields.where}: means", EstimatorError)
        means_D = [means.maybe(d, means.number) for d in listed]

        def use() -> None:
            self.clear()
            self._means_D = means_D
            if is_first():
                self._losses.put(torch.from_numpy(sums_RD))

        return use
