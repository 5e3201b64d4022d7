"""A training step that is recorded once and then replayed as one CUDA graph.

A small model's step is hundreds of kernels of a few microseconds each, and Python launches them
more slowly than a GPU runs them. A graph launches all of them at once. The first steps are taken
one kernel at a time: they are training steps like all others, in which code is compiled and
libraries take their workspaces. Then a step is recorded, which runs nothing, and from there on
replayed: tokens are copied to where the recorded kernels read them, and everything else that a
step needs, its number included, lies on the device.

Where recording fails, steps continue one kernel at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

FIRST_STEPS = 3

Output = TypeVar("Output")
logger = logging.getLogger(__name__)


class StepGraph(Generic[Output]):
    """Takes steps, by the graph once there is one.

    What a replayed step returns lies in the same memory as what the one before returned.
    """

    def __init__(self, step: Callable[[Tensor], Output], *, first_steps: int = FIRST_STEPS) -> None:
        """Record nothing yet.

        Args:
            step: From tokens, always of one shape, to what the step returns; it must keep all
                its state on the device and wait for nothing there.
            first_steps: How many steps to take before one is recorded.
        """
        self._step = step
        self._left: int | None = first_steps
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor, Output] | None = None

    def __call__(self, tokens: Tensor) -> Output:
        """Take a step."""
        if self._left == 0:
            self._record(tokens)
        elif self._left is not None:
            self._left -= 1
        if self._recorded is None:
            return self._step(tokens)
        graph, place, output = self._recorded
        place.copy_(tokens)
        graph.replay()
        return output

    def _record(self, tokens: Tensor) -> None:
        self._left = None
        place = tokens.clone()
        try:
            graph = torch.cuda.CUDAGraph()
            # The thread that reads ahead makes calls that a recording forbids its own thread.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = self._step(place)
        except RuntimeError as error:  # what may not be recorded, or memory that is short
            first = str(error).strip().partition("\n")[0]
            logger.warning("no CUDA graph of the training step, continuing without: %s", first)
            return
        self._recorded = graph, place, output
