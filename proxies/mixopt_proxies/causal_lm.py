"""The proxies' decoder as a module of its own, for `mixopt pretrain`: one member, by blocks.

The computation is that of the stack (mixopt_proxies.stack) with a single member, and so are names,
shapes and initial weights, so that what a proxy says of a mixture is said of the same model.

Shapes: B sequences, T tokens, V vocabulary, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixopt.errors import ConfigError
from mixopt_proxies.sizes import make_size
from mixopt_proxies.stack import Decoder, embed
from mixopt_proxies.weights import Weight, layout


class CausalLM(nn.Module):
    """A Llama-style decoder from random weights."""

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        *,
        size: str = "tiny",
        layers: int | None = None,
        width: int | None = None,
        heads: int | None = None,
        ff: int | None = None,
        tied: bool | None = None,
    ) -> None:
        """Draw the initial weights, from torch's generator.

        Args:
            vocab_size: Ids of the tokenizer.
            sequence_length: Tokens of a sequence.
            size: A named size of mixopt_proxies.sizes; the others override its fields.
            layers: Blocks.
            width: Residual stream.
            heads: Attention heads.
            ff: Inner width of the feed-forward.
            tied: Whether the head is the embedding.

        Raises:
            ConfigError: A value that is out of range.
        """
        super().__init__()
        self.size = make_size(
            size,
            layers=layers,
            width=width,
            heads=heads,
            ff=ff,
            tied=tied,
            sequence_length=sequence_length,
        )
        weights = {weight.name: weight for weight in layout(self.size, vocab_size)}
        self.embedding = _drawn(weights.pop("embedding"))
        self.head = None if self.size.tied else _drawn(weights.pop("head"))
        self.norm = _drawn(weights.pop("norm"))
        self.layers = nn.ModuleList(
            Block(list(_of_layer(weights, layer))) for layer in range(self.size.layers)
        )
        self._decoders: dict[torch.device, Decoder] = {}

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the logits of the next token after each, shape (B, T, V).

        Raises:
            ConfigError: Sequences of another length than the model was built for.
        """
        sequences, length = input_ids.shape
        if length != self.size.sequence_length:
            raise ConfigError(
                f"sequences of {length} tokens, and the model was built for"
                f" {self.size.sequence_length}"
            )
        decoder = self._decoder(input_ids.device)
        stream = embed(self.embedding[None], input_ids.reshape(1, -1)).float()
        for block in self.layers:
            stream = block(decoder, stream)
        hidden = decoder.norm(self.norm[None], stream)[0]
        head = self.embedding if self.head is None else self.head
        return hidden.view(sequences, length, -1) @ head.T

    def flops_per_token(self) -> float:
        """Operations of a training step for one token, with the whole square of attention."""
        square = 6.0 * self.size.layers * self.size.sequence_length * self.size.width
        vocab_size = self.embedding.shape[0]
        return self.size.step_flops(vocab_size) / self.size.step_tokens + square

    def _decoder(self, device: torch.device) -> Decoder:
        if device not in self._decoders:
            self._decoders[device] = Decoder(self.size, device=device, dtype=torch.float32)
        return self._decoders[device]


class Block(nn.Module):
    """The weights of one layer, by the names of the stack."""

    def __init__(self, weights: list[Weight]) -> None:
        super().__init__()
        for weight in weights:
            self.register_parameter(weight.name.partition(".")[2], _drawn(weight))

    def forward(self, decoder: Decoder, stream: Tensor) -> Tensor:
        """Return the residual stream after this layer, shape (1, B * T, C)."""
        leaves = {name: weight[None] for name, weight in self.named_parameters()}
        return decoder.block(leaves, "", stream)


def _of_layer(weights: dict[str, Weight], layer: int) -> list[Weight]:
    return [weight for name, weight in weights.items() if name.startswith(f"{layer}.")]


def _drawn(weight: Weight) -> nn.Parameter:
    if weight.kind == "norm":
        return nn.Parameter(torch.ones(weight.shape))
    return nn.Parameter(torch.randn(weight.shape) * weight.std)
