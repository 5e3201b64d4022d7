"""AdamW and clipping for a stack: no member's step depends on another's gradient.

The gradients are gathered into one flat buffer and scaled, each member's by its own norm;
PyTorch's fused AdamW then does all members in one pass. Norm weights do not decay, nor do
embeddings where an origin leaves them out.

The number of the step and the learning rate lie on the device, so that a step that was recorded
there (`StepGraph`) is the next step each time it is replayed.

Shapes: K members.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from mixopt_proxies.decoder.decoder_stack import AdamMoments, StackedWeights, StackOrigin
from mixopt_proxies.decoder.sizes import DecoderSize


class StackedAdamW:
    """AdamW on the weights of a stack, with clipping member by member."""

    def __init__(
        self,
        weights: StackedWeights,
        size: DecoderSize,
        steps: int,
        origin: StackOrigin | None = None,
    ) -> None:
        """Begin without moments and with the size's rates, or with those of an origin."""
        self._weights = weights
        self._size = size
        device = weights.master.device
        rates = _rates(size, steps) if origin is None else origin.rates(steps)
        self._rates_S = torch.tensor(rates, device=device)
        self._rate = torch.zeros((), device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._gradients = [weights.view(weights.gradient, w) for w in weights.weights]
        self._names = [w.name for w in weights.weights]
        self._spans = weights.decay_spans(embeddings=origin is None or origin.decay_embeddings)
        self._parts = [_part(weights.master[of], weights.gradient[of]) for of, _ in self._spans]
        groups = [
            {"params": [part], "weight_decay": size.weight_decay if decays else 0.0}
            for part, (_, decays) in zip(self._parts, self._spans, strict=True)
        ]
        self._adam = torch.optim.AdamW(
            groups,
            lr=size.lr,
            betas=size.betas,
            eps=1e-8 if origin is None else origin.eps,
            fused=True,
            capturable=device.type == "cuda",
        )
        for group in self._adam.param_groups:
            group["lr"] = self._rate
        if origin is not None and origin.moments is not None:
            self._begin_with(origin.moments)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """Clip, move the weights, and refresh their copy in the compute precision."""
        self._gather(gradients)
        self._rate.copy_(self._rates_S.index_select(0, self._place).squeeze(0))
        self._adam.step()
        self._weights.refresh()
        # Steps beyond the last, as a tuner takes them, keep its rate.
        self._place.add_(1).clamp_(max=len(self._rates_S) - 1)

    def _begin_with(self, moments: AdamMoments) -> None:
        """Give all members the moments of a checkpoint, as the state of a step that was taken."""
        master = self._weights.master
        step = torch.tensor(float(moments.step), device=master.device)
        flat = {"exp_avg": torch.empty_like(master), "exp_avg_sq": torch.empty_like(master)}
        self._weights.give_all(flat["exp_avg"], moments.first)
        self._weights.give_all(flat["exp_avg_sq"], moments.second)
        for part, (of, _) in zip(self._parts, self._spans, strict=True):
            state = {name: values[of] for name, values in flat.items()}
            self._adam.state[part] = {"step": step.clone(), **state}

    def _gather(self, gradients: Mapping[str, Tensor]) -> None:
        """Bring the gradients into the flat buffer, in fp32, clipped on the way."""
        own = [gradients[name] for name in self._names]
        if self._size.tied:
            place = self._names.index("embedding")
            own[place] = own[place] + gradients["head"]
        if self._size.clip > 0:
            write_clipped(own, self._gradients, self._size.clip)
        else:
            torch._foreach_copy_(self._gradients, own)


def write_clipped(gradients: list[Tensor], out: list[Tensor], limit: float) -> None:
    """Write each member's gradients, scaled to a norm of `limit` where it is larger."""
    norms_WK = torch.stack(
        [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float32) for g in gradients]
    )
    scale_K = (limit / (torch.linalg.vector_norm(norms_WK, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient, place in zip(gradients, out, strict=True):
        torch.mul(gradient, scale_K.view(-1, *[1] * (gradient.ndim - 1)), out=place)


def _rates(size: DecoderSize, steps: int) -> list[float]:
    curve = size.rates(steps)
    return [size.lr * curve.rate(step) for step in range(steps)]


def rate_factor(step: int, steps: int, size: DecoderSize) -> float:
    """Return the learning rate of a step, from 0, as a share of the peak."""
    return size.rates(steps).rate(step)


def _part(values: Tensor, gradient: Tensor) -> torch.nn.Parameter:
    part = torch.nn.Parameter(values)
    part.grad = gradient
    return part


FIRST_STEPS = 3

Output = TypeVar("Output")
logger = logging.getLogger(__name__)


class StepGraph(Generic[Output]):
    """Takes steps, by the graph once there is one.

    What a replayed step returns lies in the same memory as what the one before returned.
    """

    def __init__(self, step: Callable[[Tensor], Output], *, first_steps: int = FIRST_STEPS) -> None:
        """Record nothing yet."""
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
