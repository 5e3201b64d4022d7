"""AdamW and clipping for a stack: no member's step depends on another's gradient.

The gradients are gathered into one flat buffer and scaled, each member's by its own norm;
PyTorch's fused AdamW then does all members in one pass. Norm weights do not decay, nor do
embeddings where an origin leaves them out.

The number of the step and the learning rate lie on the device, so that a step that was recorded
there (mixopt_proxies.decoder.step_graph) is the next step each time it is replayed.

Shapes: K members.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mixopt_proxies.decoder.named_sizes import DecoderSize
from mixopt_proxies.decoder.origin import AdamMoments, StackOrigin
from mixopt_proxies.decoder.weights import StackedWeights


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
        """Clip, move the weights, and refresh their copy in the compute precision.

        Args:
            gradients: By the names of the weights' leaves, each (K, ...).
        """
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
    """Write each member's gradients, scaled to a norm of `limit` where it is larger.

    A member's norm is over all of its weights and no other member's.

    Args:
        gradients: Of all weights, each (K, ...).
        out: Where to, fp32, each of the same shape.
        limit: Largest norm.
    """
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
