"""Sum losses by domain over the ranks, exactly, and broadcast rank 0's decision.

Losses are added up on the device, without waiting for it, in whole numbers: a loss becomes a
multiple of 2^-20 nats, and the sums are 64-bit integers, which do not depend on the order of the
samples, on the number of ranks, or on when a checkpoint took a part of them. A loss that is not
finite (or beyond 2^20 nats) is counted, never summed.

Without torch.distributed it is one rank, and nothing is sent. What rank 0 says goes as JSON.

Shapes: B sequences, T tokens, D domains; R rows of sums.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mixopt.errors import EstimatorError
from mixopt.online.contract import Evaluate, HeldOut
from mixopt.system import Array, IntArray

UNIT = 1 << 20  # of a nat
LOSS, COUNT, BROKEN, EXCESS = range(4)
ROWS = 4
MAX_LOSS = float(1 << 20)


class DomainLosses:
    """Sums of one rank since they were last taken: losses, tokens, broken losses, excess."""

    def __init__(self, lengths_D: Sequence[float]) -> None:
        self._totals_RD = torch.zeros((ROWS, len(lengths_D)), dtype=torch.int64)
        self._lengths_D = torch.tensor(lengths_D).round().long()

    def add(
        self,
        losses: Tensor,
        domain_B: Tensor,
        mask: Tensor | None,
        reference: Tensor | None,
    ) -> None:
        """Add losses; it is done on their device, and nothing is waited for."""
        _check_shapes(losses, domain_B, mask, reference)
        with torch.no_grad():
            losses = losses.detach()
            self._follow(losses.device)
            domain_B = _beside(losses, domain_B).long()
            mask = None if mask is None else _beside(losses, mask).bool()
            if losses.ndim == 2:
                rows_RB = _rows(losses, mask, reference)
            else:
                tokens_B = self._lengths_D[domain_B] if mask is None else mask.sum(dim=1)
                one = losses[:, None], None if reference is None else reference[:, None]
                rows_RB = _rows(one[0], None, one[1]) * tokens_B
            self._totals_RD[: len(rows_RB)].index_add_(1, domain_B, rows_RB)

    def _follow(self, device: torch.device) -> None:
        """Keep the sums where the losses are."""
        if self._totals_RD.device != device:
            self._totals_RD = self._totals_RD.to(device)
            self._lengths_D = self._lengths_D.to(device)

    def put(self, totals_RD: Tensor) -> None:
        """Add sums that were taken before."""
        self._totals_RD += totals_RD.to(self._totals_RD.device)

    def take(self) -> Tensor:
        """Return the sums, shape (R, D), and start at 0 again."""
        taken = self._totals_RD
        self._totals_RD = torch.zeros_like(taken)
        return taken

    def peek(self) -> Tensor:
        """Return a copy of the sums, shape (R, D)."""
        return self._totals_RD.clone()


def _rows(losses: Tensor, mask: Tensor | None, reference: Tensor | None) -> Tensor:
    """Return the sums of each sequence; without a reference the row of excess is left out."""
    whole = losses.abs() < MAX_LOSS
    if reference is not None:
        reference = _beside(losses, reference)
        whole &= reference.abs() < MAX_LOSS
    if mask is not None:
        whole &= mask
    count_B = whole.sum(dim=1)
    asked_B = losses.shape[1] if mask is None else mask.sum(dim=1)
    rows = [_units(losses, whole), count_B, asked_B - count_B]
    if reference is not None:
        rows.append(_units((losses - reference).clamp(min=0), whole))
    return torch.stack(rows)


def _units(losses: Tensor, whole: Tensor) -> Tensor:
    """Return whole units; a power of two times a float is exact, so nothing but the unit rounds."""
    finite = torch.where(whole, losses.float(), 0.0)
    return finite.mul_(UNIT).round_().long().sum(dim=1)


def _beside(losses: Tensor, other: Tensor) -> Tensor:
    """Bring a tensor to the device of the losses."""
    return other.detach().to(losses.device, non_blocking=True)


def _check_shapes(
    losses: Tensor, domain_B: Tensor, mask: Tensor | None, reference: Tensor | None
) -> None:
    if losses.ndim not in {1, 2} or domain_B.shape != losses.shape[:1]:
        raise EstimatorError(
            f"record: losses of shape {tuple(losses.shape)} and domains of shape"
            f" {tuple(domain_B.shape)}; they are (B, T) or (B,), and (B,)"
        )
    if reference is not None and reference.shape != losses.shape:
        raise EstimatorError(
            f"record: reference_losses of shape {tuple(reference.shape)} for losses of shape"
            f" {tuple(losses.shape)}"
        )
    if mask is not None and (mask.ndim != 2 or mask.shape[: losses.ndim] != losses.shape):
        raise EstimatorError(
            f"record: a mask of shape {tuple(mask.shape)} for losses of shape"
            f" {tuple(losses.shape)}; it has their shape, or (B, T) for means of sequences"
        )


def ranks() -> int:
    """Count the ranks."""
    return dist.get_world_size() if _is_on() else 1


def is_first() -> bool:
    """Whether this rank is the one that decides."""
    return not _is_on() or dist.get_rank() == 0


class Reduction:
    """A sum over all ranks that is under way while training continues."""

    def __init__(self, totals: Tensor) -> None:
        self._work: Any = None
        self._arrived: Any = None
        self._totals = totals
        if ranks() > 1:
            self._totals = totals.to(_device_of_sums())
            self._work = dist.all_reduce(self._totals, async_op=True)
        if self._totals.is_cuda:
            self._copy_to_host()

    def _copy_to_host(self) -> None:
        """Queue the copy behind the sum, so that nothing has to be waited for later."""
        if self._work is not None:
            self._work.wait()  # the stream waits, not this process
            self._work = None
        device = self._totals.device
        host = torch.empty(self._totals.shape, dtype=torch.int64, pin_memory=True)
        host.copy_(self._totals, non_blocking=True)
        self._totals = host
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call,unused-ignore]
        self._arrived.record(torch.cuda.current_stream(device))

    def result(self) -> IntArray:
        """Wait for the sum and return it, the same on every rank."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        if self._arrived is not None:
            self._arrived.synchronize()
        result: IntArray = self._totals.cpu().numpy()
        return result


def from_first(value: Any) -> Any:
    """Return rank 0's value on every rank."""
    if ranks() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode() if is_first() else b"", np.uint8)
    device = _device_of_messages()
    size = torch.tensor([len(content)], dtype=torch.int64, device=device)
    dist.broadcast(size, src=0)
    if is_first():
        sent = torch.from_numpy(content.copy()).to(device)
    else:
        sent = torch.empty(int(size.item()), dtype=torch.uint8, device=device)
    dist.broadcast(sent, src=0)
    return json.loads(sent.cpu().numpy().tobytes())


def on_first(call: Callable[[], Any]) -> Any:
    """Return what a call gives on rank 0, else None; what it raises there is raised everywhere."""
    result, error = None, None
    if is_first():
        try:
            result = call()
        except Exception as caught:
            error = caught
    error_text = from_first(None if error is None else f"{type(error).__name__} on rank 0: {error}")
    if error is not None:
        raise error
    if error_text is not None:
        raise EstimatorError(error_text)
    return result


def _is_on() -> bool:
    return dist.is_available() and dist.is_initialized()


def _device_of_sums() -> torch.device:
    """The same on every rank, also on one that has recorded nothing."""
    if "cuda:nccl" in dist.get_backend_config() and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _device_of_messages() -> torch.device:
    """Where reading a message does not wait for the device's work, if there is a way."""
    return torch.device("cpu") if "cpu:" in dist.get_backend_config() else _device_of_sums()


MAX_SUM = float(1 << 42)  # nats of one rank, so that the sum over ranks fits


def held_out_losses(evaluate: Evaluate, names: Sequence[str]) -> HeldOut | str:
    """Evaluate on every rank; all of them have to call it."""
    evaluated = evaluate()
    parts = [_part(evaluated.get(name)) for name in names]
    sums_M4 = Reduction(torch.tensor(parts, dtype=torch.int64)).result()
    for name, (broken, _, tokens, _) in zip(names, sums_M4.tolist(), strict=True):
        if broken:
            return f"held-out loss of {name!r} is not finite"
        if tokens < 1:
            raise EstimatorError(
                f"evaluation domain {name!r} has no held-out tokens: evaluate() returned"
                f" {sorted(evaluated)}; give it held-out text, or leave it out of evaluations"
            )
    sums, tokens_M, squares = sums_M4[:, 1] / UNIT, sums_M4[:, 2], sums_M4[:, 3] / UNIT
    losses_M = sums / tokens_M
    spread_M = np.maximum(squares / tokens_M - losses_M**2, 0.0)
    return HeldOut(losses_M, np.sqrt(spread_M / tokens_M), int(tokens_M.sum()))


def _part(sums: tuple[float, ...] | None) -> tuple[int, int, int, int]:
    """Return broken, loss, tokens and squares as whole numbers, so that ranks add up exactly."""
    if sums is None:
        return (0, 0, 0, 0)
    loss, tokens, squares = (*sums, 0.0)[:3]
    if not all(math.isfinite(value) and abs(value) < MAX_SUM for value in (loss, squares)):
        return (1, 0, int(tokens), 0)
    return (0, round(loss * UNIT), int(tokens), round(squares * UNIT))


def gradient_alignment(
    losses: Sequence[Tensor | None], objective: Tensor, parameters: Iterable[Tensor]
) -> Array:
    """Return what `Driver.record_alignment` takes; every rank has to call it.

    Args:
        losses: Mean loss of each domain in this rank's batch, before `backward`; None for a
            domain that is not in it.
        objective: The loss that is to fall, of the same parameters.
        parameters: Of the model, not of its DDP wrapper; those that need no gradient are left out.

    Returns:
        Inner product of each domain's gradient, averaged over ranks, with the objective's, over
        the mean norm of the domains' gradients; 0 for a domain that no rank has, shape (D,).
    """
    kept = [parameter for parameter in parameters if parameter.requires_grad]
    goal_P = _gradient(objective, kept)
    products, norms = [], []
    for loss in losses:
        one_P = _gradient(loss, kept)
        products.append(torch.dot(one_P, goal_P))
        norms.append(one_P.norm())
    products_D, norms_D = (torch.stack(each).double().cpu().numpy() for each in (products, norms))
    seen_D = norms_D > 0
    mean = norms_D[seen_D].mean() if seen_D.any() else 1.0
    return np.asarray(products_D / mean)


def _gradient(loss: Tensor | None, parameters: Sequence[Tensor]) -> Tensor:
    """Return the mean gradient over ranks, shape (P,)."""
    if loss is None:
        parts: Sequence[Tensor | None] = [None] * len(parameters)
    else:
        parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    flat_P = torch.cat(
        [
            (torch.zeros_like(parameter) if part is None else part).flatten().float()
            for parameter, part in zip(parameters, parts, strict=True)
        ]
    )
    if ranks() > 1:
        dist.all_reduce(flat_P)
        flat_P /= ranks()
    return flat_P
