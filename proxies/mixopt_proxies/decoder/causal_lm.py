"""The proxies' decoder as a torch module, for `mixopt pretrain`.

Computation, names, shapes and initial weights are those of the stack
(mixopt_proxies.decoder.decoder_stack) with a single member, so that results of proxies apply to
this model.

With experts, `own_loss` is the term that the last training forward pass adds to the cross-entropy.

Shapes: B sequences, T tokens, V vocabulary, C width, L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mixopt.errors import ConfigError, did_you_mean
from mixopt.routing import RouterTap
from mixopt_proxies.decoder.decoder_stack import (
    EPSILON,
    ROTARY_BASE,
    Decoder,
    RowDocuments,
    Weight,
    embed,
    layout,
)
from mixopt_proxies.decoder.experts import Choice, Routed, auxiliary_loss, summed_by_sequence
from mixopt_proxies.decoder.size_options import DecoderSize
from mixopt_proxies.decoder.sizes import OF_SHAPE, make_size

Form = tuple[dict[str, Any], dict[str, Tensor]]  # configuration fields, and weights by name


class CausalLM(nn.Module):
    """A Llama-style decoder, initialised with random weights.

    Attributes:
        size: Its shape.
        own_loss: Term that the last training forward pass adds to the cross-entropy, a scalar; None
            without experts.
    """

    option_names = OF_SHAPE

    def __init__(
        self, vocab_size: int, sequence_length: int, *, size: str = "tiny", **overrides: object
    ) -> None:
        """Draw the initial weights with torch's global generator.

        Args:
            vocab_size: Number of ids.
            sequence_length: Maximum length of a sequence.
            size: A named size.
            overrides: Fields of its shape to replace (`DecoderSize`).
        """
        super().__init__()
        for option in overrides:
            if option not in OF_SHAPE:
                near = did_you_mean(option, OF_SHAPE)
                raise ConfigError(f"proxy.options.{option}: unknown option{near}")
        self.size = make_size(size, sequence_length=sequence_length, **overrides)
        weights = {weight.name: weight for weight in layout(self.size, vocab_size)}
        self.embedding = _initial(weights.pop("embedding"))
        self.head = None if self.size.tied else _initial(weights.pop("head"))
        self.norm = _initial(weights.pop("norm"))
        self.layers = nn.ModuleList()
        for layer in range(self.size.layers):
            prefix = f"{layer}."
            of_layer = [weight for name, weight in weights.items() if name.startswith(prefix)]
            self.layers.append(Block(of_layer, self.size))
        self._decoders: dict[torch.device, Decoder] = {}
        self.own_loss: Tensor | None = None

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Return the logits of the next token after each, shape (B, T, V)."""
        sequences, length = input_ids.shape
        if length > self.size.sequence_length:
            raise ConfigError(
                f"sequences of {length} tokens, but the model was built for at most"
                f" {self.size.sequence_length}"
            )
        decoder = self._decoder(input_ids.device)
        stream = embed(self.embedding[None], input_ids.reshape(1, -1)).float()
        documents = None
        if position_ids is not None:
            documents = RowDocuments.placed(position_ids)
        sums = []
        for block in self.layers:
            stream, choice = block(decoder, stream, length, documents)
            if choice is not None:
                sums.append(summed_by_sequence(choice, 1))
        if sums and self.training:
            routed = Routed.stacked(sums)
            self.own_loss = auxiliary_loss(routed, input_ids.numel(), self.size)[0]
        hidden = decoder.norm(self.norm[None], stream)[0]
        head = self.embedding if self.head is None else self.head
        return hidden.view(sequences, length, -1) @ head.T

    def flops_per_token(self) -> float:
        """Operations of a training step per token, with full (not causal) attention."""
        square = 6.0 * self.size.layers * self.size.sequence_length * self.size.width
        vocab_size = self.embedding.shape[0]
        return self.size.step_flops(vocab_size) / self.size.step_tokens + square

    def transformers_form(self) -> Form:
        """Return configuration and weights of the equivalent transformers model."""
        with torch.no_grad():
            weights = {}
            for name, weight in self.named_parameters():
                weights[name.removeprefix("layers.")] = weight.detach()
            return transformers_form(self.size, weights)

    def _decoder(self, device: torch.device) -> Decoder:
        if device not in self._decoders:
            self._decoders[device] = Decoder(self.size, device=device, dtype=torch.float32)
        return self._decoders[device]


class Block(nn.Module):
    """The weights of one layer, with the stack's names."""

    def __init__(self, weights: list[Weight], size: DecoderSize) -> None:
        super().__init__()
        for weight in weights:
            self.register_parameter(weight.name.partition(".")[2], _initial(weight))
        self.tap: RouterTap | None = None
        if size.experts:
            self.tap = RouterTap(experts=size.experts, top_k=size.top_k)

    def forward(
        self, decoder: Decoder, stream: Tensor, length: int, documents: RowDocuments | None = None
    ) -> tuple[Tensor, Choice | None]:
        """Return the residual stream after this layer, shape (1, B * T, C), and its routing."""
        leaves = {name: weight[None] for name, weight in self.named_parameters()}
        stream, choice = decoder.block(leaves, "", stream, length, documents)
        if choice is not None and self.tap is not None:
            self.tap(choice.ids_KNS)
        return stream, choice


def _initial(weight: Weight) -> nn.Parameter:
    if weight.kind == "norm":
        return nn.Parameter(torch.ones(weight.shape))
    return nn.Parameter(torch.randn(weight.shape) * weight.std)


def transformers_form(size: DecoderSize, weights: Mapping[str, Tensor]) -> Form:
    """Return transformers' configuration fields, and weights by transformers' names."""
    table = weights["embedding"]
    config: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": len(table),
        "hidden_size": size.width,
        "intermediate_size": size.ff,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": size.sequence_length,
        "rms_norm_eps": EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROTARY_BASE},
        "tie_word_embeddings": size.tied,
    }
    if size.experts:
        config |= {
            "model_type": "mixtral",
            "intermediate_size": size.expert_ff,
            "num_local_experts": size.experts,
            "num_experts_per_tok": size.top_k,
            "sliding_window": None,
        }
    form = {"model.embed_tokens.weight": table, "model.norm.weight": weights["norm"]}
    if not size.tied:
        form["lm_head.weight"] = weights["head"]
    for layer in range(size.layers):
        prefix = f"{layer}."
        part = {}
        for name, weight in weights.items():
            if name.startswith(prefix):
                part[name.removeprefix(prefix)] = weight
        for name, weight in _layer(part).items():
            form[f"model.layers.{layer}.{name}"] = weight
    return config, {name: weight.contiguous() for name, weight in form.items()}


def _layer(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a layer by transformers' names."""
    query, key, value = weights["qkv"].T.chunk(3)
    form = {
        "self_attn.q_proj.weight": query,
        "self_attn.k_proj.weight": key,
        "self_attn.v_proj.weight": value,
        "self_attn.o_proj.weight": weights["out"].T,
        "input_layernorm.weight": weights["attention_norm"],
        "post_attention_layernorm.weight": weights["ff_norm"],
    }
    if "router" not in weights:
        gate, up = weights["gate_up"].T.chunk(2)
        mlp = {"gate_proj": gate, "up_proj": up, "down_proj": weights["down"].T}
        return form | {f"mlp.{name}.weight": weight for name, weight in mlp.items()}
    form["block_sparse_moe.gate.weight"] = weights["router"].T
    experts = zip(weights["experts_gate_up"], weights["experts_down"], strict=True)
    for number, (gate_up, down) in enumerate(experts):
        gate, up = gate_up.T.chunk(2)
        for name, weight in {"w1": gate, "w2": down.T, "w3": up}.items():
            form[f"block_sparse_moe.experts.{number}.{name}.weight"] = weight
    return form
