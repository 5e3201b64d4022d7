"""Sums of losses by domain over the ranks, exact, with detection of bad losses.

Losses are accumulated on the device, without synchronisation, as integers: a loss is rounded to a
multiple of 2^-20 nats, and sums are 64-bit, so that they do not depend on the order of samples, the
number of ranks, or checkpoints in between. Losses that are not finite (or beyond 2^20 nats) are
counted, never summed.

The mean training loss changes with the mixture, so jumps are detected by comparing each domain with
its own running mean over earlier windows.

Without torch.distributed there is one rank, and no communication.

Shapes: B sequences, T tokens, D domains; R rows of sums.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mixopt.errors import EstimatorError, OtherRankError
from mixopt.online.contract import Evaluate, HeldOut, Observation
from mixopt.online.standing_plan import StreamSteps
from mixopt.system import IntArray, StateFields

Value = TypeVar("Value")

UNIT = 1 << 20  # units in a nat
# Rows of sums: units of losses, tokens, and losses that are not finite.
LOSS = 0
COUNT = 1
BROKEN = 2
ROWS = 3
MAX_LOSS = float(1 << 20)  # nats of a token
MAX_SUM = float(1 << 42)  # nats of held-out text on one rank; the sum over ranks must fit
_MAX_TOTAL = 1 << 62  # units, over all ranks
_LAST_WEIGHT = 0.3  # weight of the last window in a running mean


class DomainLosses:
    """Sums of one rank since they were last taken: losses, tokens, invalid losses."""

    def __init__(self, lengths_D: Sequence[float]) -> None:
        self.totals_RD = torch.zeros((ROWS, len(lengths_D)), dtype=torch.int64)
        self._lengths_D = torch.tensor(lengths_D).round().long()

    def add(self, losses: Tensor, domain_B: Tensor, mask: Tensor | None) -> None:
        """Add losses on their device, without synchronisation."""
        _check_shapes(losses, domain_B, mask)
        with torch.no_grad():
            losses = losses.detach()
            device = losses.device
            self.totals_RD = self.totals_RD.to(device)
            self._lengths_D = self._lengths_D.to(device)
            domain_B = domain_B.to(device, torch.long, non_blocking=True)
            if mask is not None:
                mask = mask.to(device, torch.bool, non_blocking=True)
            if losses.ndim == 2:
                sums_RB = _sequence_sums(losses, mask)
            else:
                tokens_B = self._lengths_D[domain_B] if mask is None else mask.sum(dim=1)
                sums_RB = _sequence_sums(losses[:, None], None) * tokens_B
            self.totals_RD.index_add_(1, domain_B, sums_RB)

    def put(self, totals_RD: Tensor) -> None:
        """Add sums that were taken before."""
        self.totals_RD += totals_RD.to(self.totals_RD.device)

    def take(self) -> Tensor:
        """Return the sums, and reset them to 0."""
        totals_RD = self.totals_RD
        self.totals_RD = torch.zeros_like(totals_RD)
        return totals_RD


def _sequence_sums(losses: Tensor, mask: Tensor | None) -> Tensor:
    """Return the sums of each sequence, shape (R, B), in integer units.

    Scaling a float by a power of two is exact, so only the conversion to units rounds.
    """
    is_valid = losses.abs() < MAX_LOSS
    if mask is not None:
        is_valid &= mask
    count_B = is_valid.sum(dim=1)
    expected_B = losses.shape[1] if mask is None else mask.sum(dim=1)
    units = torch.where(is_valid, losses.float(), 0.0).mul_(UNIT).round_().long()
    return torch.stack([units.sum(dim=1), count_B, expected_B - count_B])


def _check_shapes(losses: Tensor, domain_B: Tensor, mask: Tensor | None) -> None:
    if losses.ndim not in {1, 2} or domain_B.shape != losses.shape[:1]:
        raise EstimatorError(
            f"record: losses of shape {tuple(losses.shape)} and domains of shape"
            f" {tuple(domain_B.shape)}; they are (B, T) or (B,), and (B,)"
        )
    if mask is not None and (mask.ndim != 2 or mask.shape[: losses.ndim] != losses.shape):
        raise EstimatorError(
            f"record: a mask of shape {tuple(mask.shape)} for losses of shape"
            f" {tuple(losses.shape)}; it has their shape, or (B, T) for means of sequences"
        )


def is_first() -> bool:
    """Whether this is rank 0, which makes decisions."""
    return not _is_distributed() or dist.get_rank() == 0


def summed(totals: Tensor) -> IntArray:
    """Return the sum over all ranks, on every rank; all ranks call it."""
    if _is_distributed():
        totals = totals.to(_device_of_sums(), copy=True)
        dist.all_reduce(totals)
    result: IntArray = totals.cpu().numpy()
    return result


def from_first(value: Any) -> Any:
    """Return rank 0's value on every rank."""
    values = [value]
    if _is_distributed():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def on_first(call: Callable[[], Value]) -> Value:
    """Call a function on rank 0, and return its result on every rank; its error ends all."""
    result: Value | None = None
    error: BaseException | None = None
    fault: str | None = None
    if is_first():
        try:
            result = call()
        except BaseException as caught:
            error = caught
            fault = f"{type(error).__name__} on rank 0: {error}"
    result, fault = from_first((result, fault))
    if error is not None:
        raise error
    if fault is not None:
        raise OtherRankError(fault)
    return cast(Value, result)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _device_of_sums() -> torch.device:
    """The device of sums, the same kind on every rank, even without recorded losses."""
    if "cuda:nccl" in dist.get_backend_config() and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def held_out_losses(evaluate: Evaluate, names: Sequence[str]) -> HeldOut | str:
    """Evaluate held-out text; all ranks call it."""
    evaluated = evaluate()
    sums_MR = summed(torch.stack([_held_out_sums(evaluated.get(name)) for name in names]))
    for name, sums_R in zip(names, sums_MR, strict=True):
        if sums_R[BROKEN]:
            return f"held-out loss of {name!r} is not finite"
        if sums_R[COUNT] < 1:
            raise EstimatorError(
                f"evaluation domain {name!r} has no held-out tokens: evaluate() returned"
                f" {sorted(evaluated)}; give it held-out text, or leave it out of evaluations"
            )
    tokens_M = sums_MR[:, COUNT]
    return HeldOut(sums_MR[:, LOSS] / UNIT / tokens_M, int(tokens_M.sum()))


def _held_out_sums(evaluated: tuple[float, int] | None) -> Tensor:
    """Return the sums of an evaluation domain, shape (R,), which add up exactly over ranks."""
    sums_R = torch.zeros(ROWS, dtype=torch.int64)
    if evaluated is None:
        return sums_R
    loss, tokens = evaluated
    sums_R[COUNT] = int(tokens)
    if math.isfinite(loss) and abs(loss) < MAX_SUM:
        sums_R[LOSS] = round(loss * UNIT)
    else:
        sums_R[BROKEN] = 1
    return sums_R


class LossWindows:
    """Windows of steps between observations; all ranks close the same windows."""

    def __init__(self, stream: StreamSteps, *, spike: float | None, needs_losses: bool) -> None:
        self._stream = stream
        self._domains = stream.sampler.domains
        self._spike = spike
        self._needs_losses = needs_losses
        self._losses = DomainLosses(stream.lengths_D.tolist())
        self._recorded = False
        self._means: dict[str, float] = {}

    def record(self, losses: torch.Tensor, domain: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Add the losses of a batch of this rank; nothing is counted for a skipped step."""
        self._losses.add(losses, domain, mask)
        self._recorded = True

    def close(self, step: int, learning_rate: float) -> Observation | str:
        """Close a window at a step; return its sums, or what is wrong with them."""
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
        """Return the rise of losses above their running means, nats per token; update the means."""
        rises: list[float] = []
        tokens = 0
        for name, units, count in zip(self._domains, units_D, counts_D, strict=True):
            if not count:
                continue
            loss = units / (UNIT * count)
            if name in self._means:
                rises.append(count * (loss - self._means[name]))
                tokens += count
            mean = self._means.get(name, loss)
            self._means[name] = mean + _LAST_WEIGHT * (loss - mean)
        return math.fsum(rises) / max(tokens, 1)

    def clear(self) -> None:
        """Reset the window; no losses are required before the next one."""
        self._losses.take()
        self._recorded = True

    def state_dict(self) -> dict[str, Any]:
        """Return the sums over all ranks; all ranks call it."""
        return {"sums": summed(self._losses.totals_RD).tolist(), "means": dict(self._means)}

    def load(self, fields: StateFields) -> None:
        """Resume from a state; rank 0 takes all ranks' sums."""
        shape = ROWS, len(self._domains)
        sums_RD = fields.array("sums", shape, minimum=-_MAX_TOTAL, kind=int)
        means = fields.part("means")
        self._means = {name: means.number(name) for name in means.content}
        self._recorded = True
        self._losses = DomainLosses(self._stream.lengths_D.tolist())
        if is_first():
            self._losses.put(torch.from_numpy(sums_RD))
