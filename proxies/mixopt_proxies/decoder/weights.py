"""The weights of a stack of decoders, in one piece of memory.

Every weight has a leading member axis. All of them lie one after another in a flat fp32
buffer, so that the optimizer is one call, whatever the number of layers; the products read
a copy in the compute precision that is refreshed once a step. The order is
[matrices, head | embedding | routers | norms]: what is copied is a prefix, and what decays is one
where embeddings do. Routers choose in fp32, where two experts are hardly ever equal.

What balances experts by a bias is moved by no gradient and lies beside the weights.

Each member's initial weights come from its own seed and nothing else, unless all begin where one
checkpoint ended (mixopt_proxies.decoder.origin).

Shapes: K members, V vocabulary, C width, L layers, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mixopt_proxies.decoder.named_sizes import DecoderSize
from mixopt_proxies.decoder.origin import StackOrigin

Kind = Literal["matrix", "embedding", "router", "norm"]


@dataclass(frozen=True)
class Weight:
    """One weight of a member: its name, shape, initial deviation (0: all ones) and kind."""

    name: str
    shape: tuple[int, ...]
    std: float
    kind: Kind

    @property
    def count(self) -> int:
        """Numbers in one member's weight."""
        return math.prod(self.shape)


def layout(size: DecoderSize, vocab_size: int) -> list[Weight]:
    """List the weights of a decoder in the order of the buffer.

    Matrices are (in, out), tables (V, C). Initial deviations are 1/sqrt(in), and those that
    write to the residual stream are smaller by sqrt(2 layers), as in GPT-2.
    """
    width = size.width
    narrow = 1.0 / math.sqrt(2 * size.layers)
    matrices, routers, norms = [], [], []
    for layer in range(size.layers):
        matrices += [
            _matrix(f"{layer}.qkv", width, 3 * width, 1.0),
            _matrix(f"{layer}.out", width, width, narrow),
            *_feed_forward(size, layer, narrow),
        ]
        if size.experts is not None:
            shape = (width, size.experts.experts)
            routers.append(Weight(f"{layer}.router", shape, 1.0 / math.sqrt(width), "router"))
        norms += [_norm(f"{layer}.attention_norm", width), _norm(f"{layer}.ff_norm", width)]
    tables = [Weight("embedding", (vocab_size, width), 1.0 / math.sqrt(width), "embedding")]
    if not size.tied:
        tables.insert(0, Weight("head", (vocab_size, width), 1.0 / math.sqrt(width), "matrix"))
    return [*matrices, *tables, *routers, *norms, _norm("norm", width)]


class StackedWeights:
    """Weights of K decoders, their copy in the compute precision, and their gradients.

    Attributes:
        leaves: What the decoder reads, by name; `head` is there also when it is tied, and
            `<layer>.bias`, which needs no gradient, where experts are balanced so.
        biases_LKE: What is added to the routers' probabilities for choosing; None without it.
        master: All weights in fp32, flat.
        gradient: Their gradients, flat, in the same order.
    """

    def __init__(
        self,
        size: DecoderSize,
        vocab_size: int,
        seeds: Sequence[int],
        *,
        device: torch.device,
        dtype: torch.dtype,
        origin: StackOrigin | None = None,
    ) -> None:
        """Draw the initial weights of one member for each seed, or give all those of an origin."""
        self.members = len(seeds)
        self.tied = size.tied
        self.weights = layout(size, vocab_size)
        starts = [0]
        for weight in self.weights:
            starts.append(starts[-1] + weight.count * self.members)
        self._starts = dict(zip((w.name for w in self.weights), starts, strict=False))
        self.master = torch.empty(starts[-1], device=device)
        self.gradient = torch.zeros_like(self.master)
        if origin is None:
            self._fill(seeds)
        else:
            self.give_all(self.master, origin.weights)
        last = "embedding" if size.tied else "matrix"
        self._copied = max(self._end(weight) for weight in self.weights if weight.kind == last)
        low = dtype != torch.float32
        self._copy = self.master[: self._copied].to(dtype) if low else self.master
        self.biases_LKE = _no_biases(size, self.members, device)
        if self.biases_LKE is not None and origin is not None and origin.biases_LE is not None:
            self.biases_LKE.copy_(origin.biases_LE[:, None])
        self.leaves = self._make_leaves()

    @property
    def parameters(self) -> int:
        """Weights of one member."""
        return sum(weight.count for weight in self.weights)

    def refresh(self) -> None:
        """Bring the copy in the compute precision up to date."""
        if self._copy is not self.master:
            self._copy.copy_(self.master[: self._copied])

    def decay_spans(self, *, embeddings: bool) -> list[tuple[slice, bool]]:
        """Return parts of the buffer, one after another, and whether each decays; norms do not.

        Args:
            embeddings: Whether embeddings do.
        """
        kept = {"norm"} if embeddings else {"norm", "embedding"}
        found: list[tuple[slice, bool]] = []
        for weight in self.weights:
            start, decays = self._starts[weight.name], weight.kind not in kept
            if found and found[-1][1] == decays:
                start = found.pop()[0].start
            found.append((slice(start, self._end(weight)), decays))
        return found

    def member(self, k: int) -> dict[str, Tensor]:
        """Return views of one member's fp32 weights by name; call `refresh` after a change."""
        return {w.name: self.view(self.master, w)[k] for w in self.weights}

    def view(self, flat: Tensor, weight: Weight) -> Tensor:
        """Return one weight of all members, shape (K, ...), in a flat buffer."""
        part = flat[self._starts[weight.name] : self._end(weight)]
        return part.view(self.members, *weight.shape)

    @torch.no_grad()
    def give_all(self, flat: Tensor, values: Mapping[str, Tensor]) -> None:
        """Write one member's values, by the names of the weights, to all members in a buffer.

        Args:
            flat: In the order of `master`.
            values: Each of the shape of its weight.
        """
        for weight in self.weights:
            self.view(flat, weight).copy_(values[weight.name][None])

    def _end(self, weight: Weight) -> int:
        return self._starts[weight.name] + weight.count * self.members

    def _make_leaves(self) -> dict[str, Tensor]:
        leaves = {}
        for weight in self.weights:
            source = self._copy if weight.kind == "matrix" else self.master
            leaves[weight.name] = self.view(source, weight).detach().requires_grad_()
            if weight.kind == "embedding" and self.tied:
                head = self.view(self._copy, weight)
                leaves["head"] = head.detach().requires_grad_()
        if self.biases_LKE is not None:
            leaves |= {f"{layer}.bias": bias for layer, bias in enumerate(self.biases_LKE)}
        return leaves

    def _fill(self, seeds: Sequence[int]) -> None:
        for k, seed in enumerate(seeds):
            # The CPU's generator on every device: a trial starts the same everywhere.
            generator = torch.Generator().manual_seed(seed)
            for weight in self.weights:
                view = self.view(self.master, weight)[k]
                if weight.kind == "norm":
                    view.fill_(1.0)
                else:
                    view.copy_(torch.randn(weight.shape, generator=generator) * weight.std)


def _feed_forward(size: DecoderSize, layer: int, narrow: float) -> list[Weight]:
    width, experts = size.width, size.experts
    dense = size.ff if experts is None else experts.shared_ff
    found = []
    if dense:
        found += [
            _matrix(f"{layer}.gate_up", width, 2 * dense, 1.0),
            _matrix(f"{layer}.down", dense, width, narrow),
        ]
    if experts is not None:
        shape = (experts.experts, width, 2 * experts.expert_ff)
        inner = experts.expert_ff
        found += [
            Weight(f"{layer}.experts_gate_up", shape, 1.0 / math.sqrt(width), "matrix"),
            Weight(
                f"{layer}.experts_down",
                (experts.experts, inner, width),
                narrow / math.sqrt(inner),
                "matrix",
            ),
        ]
    return found


def _no_biases(size: DecoderSize, members: int, device: torch.device) -> Tensor | None:
    if size.experts is None or size.experts.balance != "bias":
        return None
    return torch.zeros(size.layers, members, size.experts.experts, device=device)


def _matrix(name: str, inputs: int, outputs: int, scale: float) -> Weight:
    return Weight(name, (inputs, outputs), scale / math.sqrt(inputs), "matrix")


def _norm(name: str, width: int) -> Weight:
    return Weight(name, (width,), 0.0, "norm")
