"""The decoder as a model of transformers that computes the same.

Without experts it is Llama. With experts it is Mixtral, whose router takes a softmax, then the
largest, then divides by their sum, as ours does for two experts a token or more. ERNIE 4.5 MoE has
what Mixtral lacks: a bias for choosing alone that is added to the probabilities, shared experts
without a gate, and a least value of that sum, which at 1 leaves the probability of a single expert
as it is. Its rotary positions turn neighbouring channels where ours turn halves of a head, so that
channels of queries and keys change places.

Qwen2-MoE gates its shared experts, OLMoE normalises queries and keys, and the scores of DeepSeek-V3
are sigmoids: none of them is equal.

Shapes: matrices of transformers are (out, in), ours (in, out); E experts, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mixopt_proxies.decoder.attention import ROTARY_BASE
from mixopt_proxies.decoder.expert_options import Experts
from mixopt_proxies.decoder.named_sizes import DecoderSize
from mixopt_proxies.decoder.stack import EPSILON

Form = tuple[dict[str, Any], dict[str, Tensor]]


def transformers_form(size: DecoderSize, weights: Mapping[str, Tensor]) -> Form:
    """Return the fields of a configuration, and weights by the names of its files.

    Args:
        size: Of the decoder.
        weights: Its weights and biases by the names of the stack; `head` only where it is not tied.
    """
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
