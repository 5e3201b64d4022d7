"""Blocks of tokens on the device, with the next ones prefetched while it works.

On a GPU a thread reads a block into page-locked memory while the steps of the one before run; the
copy is queued among the steps, and nothing waits for it but the thread, before it writes to the
same memory again. Two such buffers serve a whole training. On a CPU a thread would only take time
from the steps, so blocks are read as they are needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Span = tuple[int, int]
Read = Callable[[int, int], NDArray[np.int32]]

BUFFERS = 2


def blocks(read: Read, spans: list[Span], device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Yield where each block begins, and its tokens as int64 on the device.

    Args:
        read: From the first and the stop of a span to its tokens, the steps first.
        spans: What to read, in this order.
        device: Where to.
    """
    if device.type == "cuda":
        yield from blocks_ahead(read, spans, device)
        return
    for first, stop in spans:
        yield first, torch.from_numpy(read(first, stop)).to(device, torch.int64)


def blocks_ahead(
    read: Read, spans: list[Span], device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks as `blocks` does, read by a thread that is up to two blocks ahead."""
    buffers = [Buffer(device) for _ in range(BUFFERS)]
    pool = ThreadPoolExecutor(1, thread_name_prefix="tokens")
    waiting: deque[Future[int]] = deque()
    try:
        for buffer, span in zip(buffers, spans, strict=False):
            waiting.append(pool.submit(buffer.fill, read, span))
        for i, (first, _) in enumerate(spans):
            buffer = buffers[i % BUFFERS]
            count = waiting.popleft().result()
            block = buffer.sent(count)
            if i + BUFFERS < len(spans):
                waiting.append(pool.submit(buffer.fill, read, spans[i + BUFFERS]))
            yield first, block
    finally:
        pool.shutdown(cancel_futures=True)


class Buffer:
    """Memory of a block on the host, page-locked where the device is a GPU."""

    def __init__(self, device: torch.device) -> None:
        """Take no memory yet."""
        self._device = device
        self._host: Tensor | None = None
        # PyTorch's own annotations leave the constructor out.
        event: Callable[[], torch.cuda.Event] = torch.cuda.Event
        self._copied = event() if device.type == "cuda" else None

    def fill(self, read: Read, span: Span) -> int:
        """Read a block, once what was here before has been copied; return its steps."""
        block = torch.from_numpy(read(*span))
        if self._copied is not None:
            self._copied.synchronize()
        if self._host is None:
            self._host = torch.empty(
                block.shape, dtype=block.dtype, pin_memory=self._copied is not None
            )
        # The last block may be shorter, never longer.
        self._host[: len(block)].copy_(block)
        return len(block)

    def sent(self, count: int) -> Tensor:
        """Queue the copy of the first `count` steps to the device, and return it there."""
        assert self._host is not None, "filled before it is sent"
        block = self._host[:count].to(self._device, non_blocking=True, copy=True)
        if self._copied is not None:
            self._copied.record()
        return block.long()
