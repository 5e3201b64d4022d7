"""The proxies' decoder as a module of its own, for `mixopt pretrain`: one member, by blocks.

The computation is that of the stack (mixopt_proxies.decoder.stack) with a single member, and so are
names, shapes and initial weights, so that what a proxy says of a mixture is said of the same model.

With experts, `own_loss` is what the last forward pass in training adds to the cross-entropy, and
`step_taken` moves the biases that balance them.

Shapes: B sequences, T tokens, V vocabulary, C width, L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from mixopt.errors import ConfigError
from mixopt.routing import RouterTap
from mixopt_proxies.decoder.attention import RowDocuments
from mixopt_proxies.decoder.expert_choice import Routed, added_up, own_loss, shift_biases
from mixopt_proxies.decoder.expert_options import Experts
from mixopt_proxies.decoder.named_sizes import ShapeOverrides, make_size
from mixopt_proxies.decoder.option_checks import check_names
from mixopt_proxies.decoder.stack import Decoder, embed
from mixopt_proxies.decoder.transformers_form import Form, transformers_form
from mixopt_proxies.decoder.weights import Weight, layout


class CausalLM(nn.Module):
    """A Llama-style decoder from random weights.

    Attributes:
        size: Its shape.
        own_loss: What the last forward pass in training adds to the cross-entropy, a number; None
            without experts.
    """

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        *,
        size: str = "tiny",
        **overrides: Unpack[ShapeOverrides],
    ) -> None:
        """Draw the initial weights, from torch's generator.

        Args:
            vocab_size: Ids of the tokenizer.
            sequence_length: Tokens of a sequence.
            size: A named size (mixopt_proxies.decoder.named_sizes).
            **overrides: Fields of its shape, such as `width=64`, and of its experts, such as
                `top_k=1` (mixopt_proxies.decoder.expert_options).

        Raises:
            ConfigError: A value that is out of range, or of no use beside the others; or an option
                that there is not.
        """
        super().__init__()
        check_names(overrides, ShapeOverrides)
        self.size = make_size(size, sequence_length=sequence_length, **overrides)
        weights = {weight.name: weight for weight in layout(self.size, vocab_size)}
        self.embedding = _drawn(weights.pop("embedding"))
        self.head = None if self.size.tied else _drawn(weights.pop("head"))
        self.norm = _drawn(weights.pop("norm"))
        self.layers = nn.ModuleList(
            Block(list(_of_layer(weights, layer)), self.size.experts)
            for layer in range(self.size.layers)
        )
        self._decoders: dict[torch.device, Decoder] = {}
        self.own_loss: Tensor | None = None
        # No buffer: it is of this rank alone and of no use once the step is taken.
        self._counts_LE: Tensor | None = None

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Return the logits of the next token after each, shape (B, T, V).

        Args:
            input_ids: Shape (B, T).
            position_ids: Each token's place in its document, from 0, shape (B, T), where documents
                of a row do not see each other.

        Raises:
            ConfigError: Sequences that are longer than the model was built for.
        """
        sequences, length = input_ids.shape
        if length > self.size.sequence_length:
            raise ConfigError(
                f"sequences of {length} tokens, and the model was built for"
                f" {self.size.sequence_length} at most"
            )
        decoder = self._decoder(input_ids.device)
        stream = embed(self.embedding[None], input_ids.reshape(1, -1)).float()
        routed = []
        documents = None if position_ids is None else RowDocuments.placed(position_ids)
        for block in self.layers:
            stream, counts, sums = block(decoder, stream, length, documents)
            routed.append((counts, sums))
        if self.size.experts is not None and self.training:
            self._add(Routed(*map(torch.stack, zip(*routed, strict=True))), input_ids.numel())
        hidden = decoder.norm(self.norm[None], stream)[0]
        head = self.embedding if self.head is None else self.head
        return hidden.view(sequences, length, -1) @ head.T

    def flops_per_token(self) -> float:
        """Operations of a training step for one token, with the whole square of attention."""
        square = 6.0 * self.size.layers * self.size.sequence_length * self.size.width
        vocab_size = self.embedding.shape[0]
        return self.size.step_flops(vocab_size) / self.size.step_tokens + square

    def transformers_form(self) -> Form:
        """Return the configuration and the weights of a model of transformers that is equal."""
        with torch.no_grad():
            weights = {name: weight.detach() for name, weight in self.named_parameters()}
            weights |= {name: buffer.detach() for name, buffer in self.named_buffers()}
            return transformers_form(
                self.size, {name.removeprefix("layers."): one for name, one in weights.items()}
            )

    def step_taken(self, sum_over_ranks: Callable[[Tensor], None], *, moved: bool) -> None:
        """Move the biases that balance experts after a step of the optimiser.

        Args:
            sum_over_ranks: Adds up a tensor, in place, over all that train on parts of the batch.
            moved: Whether the weights were moved; where a step was skipped, biases stay as well.
        """
        counts_LE, self._counts_LE = self._counts_LE, None
        experts = self.size.experts
        if counts_LE is None or experts is None or experts.balance != "bias" or not moved:
            return
        sum_over_ranks(counts_LE)
        for block, counts_E in zip(self.layers, counts_LE, strict=True):
            shift_biases(block.get_buffer("bias"), counts_E, experts.bias_rate)

    def _add(self, routed: Routed, tokens: int) -> None:
        """Keep what a pass of a step adds to the loss, and to the load of the step."""
        assert self.size.experts is not None, "only experts are balanced"
        self.own_loss = own_loss(routed, tokens, self.size.experts)[0]
        counts_LE = routed.counts_LKBE.sum((1, 2))
        self._counts_LE = counts_LE if self._counts_LE is None else self._counts_LE + counts_LE

    def _decoder(self, device: torch.device) -> Decoder:
        if device not in self._decoders:
            self._decoders[device] = Decoder(self.size, device=device, dtype=torch.float32)
        return self._decoders[device]


class Block(nn.Module):
    """The weights of one layer, by the names of the stack."""

    def __init__(self, weights: list[Weight], experts: Experts | None) -> None:
        super().__init__()
        for weight in weights:
            self.register_parameter(weight.name.partition(".")[2], _drawn(weight))
        self.tap = None
        if experts is not None:
            self.tap = RouterTap(experts=experts.experts, top_k=experts.top_k)
            if experts.balance == "bias":
                self.register_buffer("bias", torch.zeros(experts.experts))

    def forward(
        self, decoder: Decoder, stream: Tensor, length: int, documents: RowDocuments | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the residual stream after this layer, shape (1, B * T, C).

        And how many tokens each expert was given, and what its router summed over them; None
        without experts.
        """
        named = (*self.named_parameters(), *self.named_buffers())
        leaves = {name: weight[None] for name, weight in named}
        stream, choice = decoder.block(leaves, "", stream, length, documents)
        if choice is None or self.tap is None:
            return stream, None, None
        self.tap(choice.ids_KNS)
        return stream, *added_up(choice, 1)


def _of_layer(weights: dict[str, Weight], layer: int) -> list[Weight]:
    return [weight for name, weight in weights.items() if name.startswith(f"{layer}.")]


def _drawn(weight: Weight) -> nn.Parameter:
    if weight.kind == "norm":
        return nn.Parameter(torch.ones(weight.shape))
    return nn.Parameter(torch.randn(weight.shape) * weight.std)
