"""Sum whole numbers over the ranks, and tell all ranks what rank 0 decided.

Without torch.distributed it is one rank, and nothing is sent. What rank 0 says goes as JSON.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mixopt.system import IntArray


def ranks() -> int:
    """Count the ranks."""
    return dist.get_world_size() if _is_on() else 1


def is_first() -> bool:
    """Whether this rank is the one that decides."""
    return not _is_on() or dist.get_rank() == 0


class Reduction:
    """A sum over all ranks that is under way while training goes on."""

    def __init__(self, totals: Tensor) -> None:
        """Begin; every rank does, at the same place of its loop.

        Args:
            totals: int64, this rank's part; not to be used afterwards.
        """
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
    """Return rank 0's value on every rank.

    Args:
        value: Anything that JSON has; of rank 0 alone it is used.
    """
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
