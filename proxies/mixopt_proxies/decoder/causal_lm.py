"""The proxies' decoder as a module of its own, for `mixopt pretrain`: one member, by blocks.

The computation is that of the stack (mixopt_proxies.decoder.decoder_stack) with a single member,
and so are names, shapes and initial weights: what a proxy says of a mixture is said of this model.

With experts, `own_loss` is what the last forward pass in training adds to the cross-entropy, and
`step_taken` moves the biases that balance them.

Shapes: B sequences, T tokens, V vocabulary, C width, L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from mixopt.errors import ConfigError
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
from mixopt_proxies.decoder.experts import Routed, added_up, own_loss, shift_biases
from mixopt_proxies.decoder.sizes import (
    DecoderSize,
    Experts,
    ShapeOverrides,
    check_names,
    make_size,
)


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
        """Draw the initial weights, from torch's generator."""
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
        """Return the logits of the next token after each, shape (B, T, V)."""
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
        """Move the biases that balance experts after a step of the optimiser."""
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
        """Return the residual stream after this layer, shape (1, B * T, C)."""
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


Form = tuple[dict[str, Any], dict[str, Tensor]]


def transformers_form(size: DecoderSize, weights: Mapping[str, Tensor]) -> Form:
    """Return the fields of a configuration, and weights by the names of its files."""
    table = weights["embedding"]
    config = _config(size, len(table))
    named = {"model.embed_tokens.weight": table, "model.norm.weight": weights["norm"]}
    if not size.tied:
        named["lm_head.weight"] = weights["head"]
    for layer in range(size.layers):
        prefix = f"{layer}."
        own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        for name, weight in _layer(size, own, config["model_type"]).items():
            named[f"model.layers.{layer}.{name}"] = weight
    return config, {name: weight.contiguous() for name, weight in named.items()}


def _config(size: DecoderSize, vocab_size: int) -> dict[str, Any]:
    shared = {
        "vocab_size": vocab_size,
        "hidden_size": size.width,
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
    experts = size.experts
    if experts is None:
        return {"model_type": "llama", "intermediate_size": size.ff, **shared}
    if _is_mixtral(experts):
        return {
            "model_type": "mixtral",
            "intermediate_size": experts.expert_ff,
            "num_local_experts": experts.experts,
            "num_experts_per_tok": experts.top_k,
            "sliding_window": None,
            **shared,
        }
    return {
        "model_type": "ernie4_5_moe",
        "intermediate_size": experts.expert_ff,
        "moe_intermediate_size": experts.expert_ff,
        "moe_num_experts": experts.experts,
        "moe_k": experts.top_k,
        "moe_num_shared_experts": experts.shared_experts,
        "moe_layer_start_index": 0,
        "moe_layer_end_index": size.layers - 1,
        "moe_layer_interval": 1,
        "moe_norm_min": 1.0 if experts.top_k == 1 else 1e-12,
        "use_bias": False,
        **shared,
    }


def _is_mixtral(experts: Experts) -> bool:
    return experts.top_k > 1 and not experts.shared_experts and experts.balance != "bias"


def _layer(size: DecoderSize, own: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return the weights of a layer by the names of transformers."""
    query, key, value = own["qkv"].T.chunk(3)
    if kind == "ernie4_5_moe":
        query, key = (_neighbours(rows, size) for rows in (query, key))
    named = {
        "self_attn.q_proj.weight": query,
        "self_attn.k_proj.weight": key,
        "self_attn.v_proj.weight": value,
        "self_attn.o_proj.weight": own["out"].T,
        "input_layernorm.weight": own["attention_norm"],
        "post_attention_layernorm.weight": own["ff_norm"],
    }
    if kind == "llama":
        return named | _swiglu("mlp.", own["gate_up"], own["down"])
    return named | (_mixtral(own) if kind == "mixtral" else _ernie(own))


def _neighbours(rows: Tensor, size: DecoderSize) -> Tensor:
    """Place the channels that turn together, halves of a head, beside each other."""
    halves = rows.view(size.heads, 2, size.head_width // 2, -1)
    return halves.transpose(1, 2).reshape(rows.shape)


def _mixtral(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {"block_sparse_moe.gate.weight": own["router"].T}
    for e, (gate_up, down) in enumerate(_experts(own)):
        gate, up = gate_up.T.chunk(2)
        prefix = f"block_sparse_moe.experts.{e}."
        named |= {f"{prefix}w1.weight": gate, f"{prefix}w3.weight": up}
        named[f"{prefix}w2.weight"] = down.T
    return named


def _ernie(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    router = own["router"].T
    bias_E = own.get("bias", torch.zeros(len(router)))
    named = {
        "mlp.gate.weight": router,
        "mlp.moe_statics.e_score_correction_bias": bias_E[None],
    }
    for e, (gate_up, down) in enumerate(_experts(own)):
        named |= _swiglu(f"mlp.experts.{e}.", gate_up, down)
    if "gate_up" in own:
        named |= _swiglu("mlp.shared_experts.", own["gate_up"], own["down"])
    return named


def _experts(own: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(own["experts_gate_up"], own["experts_down"], strict=True))


def _swiglu(prefix: str, gate_up: Tensor, down: Tensor) -> dict[str, Tensor]:
    gate, up = gate_up.T.chunk(2)
    return {
        f"{prefix}gate_proj.weight": gate,
        f"{prefix}up_proj.weight": up,
        f"{prefix}down_proj.weight": down.T,
    }
