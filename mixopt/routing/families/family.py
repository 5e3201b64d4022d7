"""What is known of one family of mixture-of-experts models.

Shapes: T tokens, K experts of a token, E experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

# What turns logits into probabilities; DeepSeek-V4's is the square root of softplus, normalised.
Scores = Literal["softmax", "sigmoid", "sqrt_softplus"]
# By what the experts get alike many tokens: an auxiliary loss that the model returns, a bias that
# is moved after each step (DeepSeek-V3), or nothing.
Balance = Literal["auxiliary", "bias", "none"]
# Ids, logits, weights, share of shared experts and experts' outputs, in this order; None for what
# is not known, and the last ones may be left out.
Read = Callable[[Any], "tuple[Tensor | None, ...]"]


@dataclass(frozen=True)
class RouterFamily:
    """One family of transformers, by the `model_type` of its text configuration.

    Attributes:
        routers: Names of the classes of its routers.
        scores: What turns logits into probabilities.
        balance: By what its experts are balanced.
        coefficient: Attribute of the configuration that the auxiliary loss is multiplied by; None
            where there is no auxiliary loss.
        bias: Where a router keeps the bias that it adds to choose, from the router on
            ("e_score_correction_bias"); None where it has none.
        read: From what a router returns to ids, shape (T, K), and logits, shape (T, E).
    """

    routers: tuple[str, ...]
    scores: Scores
    balance: Balance
    read: Read
    coefficient: str | None = None
    bias: str | None = None
