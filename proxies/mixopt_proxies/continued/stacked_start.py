"""A checkpoint of the decoder as what all members of a stack begin with.

The names of its weights are the stack's, but for the prefix of the layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mixopt_proxies.continued.annealing import ADAM_STATE, Annealing
from mixopt_proxies.decoder import (
    AdamMoments,
    CausalLM,
    Compile,
    GroupTraining,
    StackOrigin,
)

_LAYERS = "layers."


def stacked_from(
    model: CausalLM, moments: Mapping[str, Tensor], annealing: Annealing, compile: Compile
) -> GroupTraining:
    """Return what trains trials together, all of them from one model.

    Args:
        model: With the weights of the checkpoint.
        moments: Adam's, by the names of the model's weights and of Adam's state, such as
            `norm.exp_avg`; empty where they are not taken over.
        annealing: How trials are trained.
        compile: Whether their steps are compiled.
    """
    size = replace(
        model.size,
        lr=annealing.lr,
        warmup=0.0,
        schedule="constant",
        sequence_length=annealing.sequence_length,
        batch=annealing.batch,
        weight_decay=annealing.weight_decay,
        betas=annealing.betas,
        clip=annealing.clip,
    )
    origin = StackOrigin(
        {_stacked(name): weight.detach() for name, weight in model.named_parameters()},
        annealing.rates,
        _biases(model),
        _moments(moments),
        annealing.eps,
        annealing.decay_embeddings,
    )
    return GroupTraining(
        size,
        precision=annealing.precision,
        compile=compile,
        origin=origin,
        vocab_size=len(model.embedding),
        mask_documents=annealing.mask_documents,
    )


def _stacked(name: str) -> str:
    return name.removeprefix(_LAYERS)


def _biases(model: CausalLM) -> Tensor | None:
    found = [bias for name, bias in model.named_buffers() if name.endswith(".bias")]
    return torch.stack(found) if found else None


def _moments(of_model: Mapping[str, Tensor]) -> AdamMoments | None:
    if not of_model:
        return None
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in ADAM_STATE}
    for name, value in of_model.items():
        weight, _, part = name.rpartition(".")
        parts[part][_stacked(weight)] = value
    step = max(int(value) for value in parts["step"].values())
    return AdamMoments(parts["exp_avg"], parts["exp_avg_sq"], step)
