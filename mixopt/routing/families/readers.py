"""Read expert ids and logits from what the routers of transformers return.

Shapes: T tokens, K experts of a token, E experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from mixopt.routing.families.family import Scores


def read_triple(output: Any, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Read (logits, weights, ids), which most routers return."""
    return output[2], output[0]


def read_probabilities(output: Any, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Read (probabilities, weights, ids), as of Gemma 4; their logs are logits of the same."""
    return output[2], output[0].clamp(min=torch.finfo(output[0].dtype).tiny).log()


def read_logits(output: Any, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Read logits alone, as of DBRX, whose block chooses among their softmax."""
    return torch.softmax(output, 1, dtype=output.dtype).topk(top_k).indices, output


def read_sorted(output: Any, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Read what JetMoE's gating returns: tokens sorted by expert, and logits last."""
    return output[4].topk(top_k, dim=1).indices, output[4]


def read_dense(output: Any, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Read (scores of all experts, logits), as of Llama 4, whose experts all run."""
    return output[1].topk(top_k, dim=1).indices, output[1]


def read_skipping(output: Any, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Read (logits, weights, ids) of Zaya, where a skipped token has weight 0 and the id 0."""
    logits_TE, weights_TK, ids_TK = output[0], output[1], output[2]
    return ids_TK.masked_fill(weights_TK == 0, experts), logits_TE


def read_capacity(output: Any, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Read (one-hot choice within the capacity, probability, logits) of Switch Transformers."""
    chosen_TE = output[0].flatten(0, -2)
    dropped_T = chosen_TE.sum(-1) == 0
    ids_T = chosen_TE.argmax(-1).masked_fill(dropped_T, experts)
    return ids_T[:, None], output[2].flatten(0, -2)


def read_product_keys(output: Any, experts: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Read (output, logits of two keys) of Doge: an expert is a pair, its logit their sum.

    Experts beyond the square of the keys cannot be chosen.
    """
    first_TN, second_TN = output[1]
    pairs_TE = (first_TN[:, :, None] + second_TN[:, None, :]).flatten(1)
    logits_TE = nn.functional.pad(pairs_TE, (0, experts - pairs_TE.shape[1]), value=-torch.inf)
    return logits_TE.topk(top_k).indices, logits_TE


def scores_of_function(router: nn.Module) -> Scores:
    """Return the scoring of a router whose configuration names a function (DeepSeek-V4)."""
    known: dict[str, Scores] = {"Sigmoid": "sigmoid", "SqrtSoftplusActivation": "sqrt_softplus"}
    return known.get(type(router.score_fn).__name__, "softmax")


def scores_of_selection(router: nn.Module) -> Scores:
    """Return the scoring of one of Cohere 2's routers, which its configuration names."""
    return "sigmoid" if router.expert_selection_fn == "sigmoid" else "softmax"
