"""The families of transformers 5 that have experts, by the `model_type` of their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mixopt.routing.families.family import RouterFamily


def _triple(output: Any) -> tuple[Tensor, Tensor | None]:
    """Read (logits, weights, ids), which most routers return."""
    return output[2], output[0]


FAMILIES: Mapping[str, RouterFamily] = {
    "mixtral": RouterFamily(
        ("MixtralTopKRouter",), "softmax", "auxiliary", _triple, coefficient="router_aux_loss_coef"
    ),
    "olmoe": RouterFamily(
        ("OlmoeTopKRouter",), "softmax", "auxiliary", _triple, coefficient="router_aux_loss_coef"
    ),
    "deepseek_v3": RouterFamily(
        ("DeepseekV3TopkRouter",), "sigmoid", "bias", _triple, bias="e_score_correction_bias"
    ),
    "glm4_moe": RouterFamily(
        ("Glm4MoeTopkRouter",), "sigmoid", "bias", _triple, bias="e_score_correction_bias"
    ),
}


def family_of(model: nn.Module) -> RouterFamily | None:
    """Return what is known of a model's family; None for a model of none.

    Args:
        model: One of transformers', by its configuration's `model_type`; wrapped or not.
    """
    for module in model.modules():
        found = FAMILIES.get(getattr(getattr(module, "config", None), "model_type", ""))
        if found is not None:
            return found
    return None
