"""Knowledge of one family of mixture-of-experts models.

Shapes: T tokens, K experts of a token, E experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

# What turns logits into probabilities; DeepSeek-V4's is the square root of softplus, normalised.
Scores = Literal["softmax", "sigmoid", "sqrt_softplus"]
# By what the experts get alike many tokens: an auxiliary loss that the model returns, a bias that
# is moved after each step (DeepSeek-V3), or nothing.
Balance = Literal["auxiliary", "bias", "none"]
# Ids, logits, weights, share of shared experts and experts' outputs, in this order; None for what
# is not known, and the last ones may be left out.
Read = Callable[[Any], "tuple[Tensor | None, ...]"]


@dataclass(frozen=True)
class KnownRouter:
    """How the routers of one class of transformers are read.

    A path is an attribute of the router, of the block around it, or, after "config.", of the
    model's configuration: "layer.out_features", "config.ffn_config.moe_top_k".

    Attributes:
        name: Of the class.
        scores: What turns logits into probabilities; or what determines it for one router, where
            its configuration chooses.
        read: From what a router returns, E and K to ids, shape (T, K), and logits, shape (T, E).
            With `drops` or `idle` an id of E or more stands for a choice that no expert computes.
        experts: Path of the number of experts.
        top_k: Path of the number of experts of a token, or the number itself.
        idle: Path of the number of choices after the experts that compute nothing, such as
            LongCat's identities, or the number itself; logits have them, too.
        bias: Path of what is added to choose, to balance the load; None where there is nothing.
        drops: Whether choices are dropped for want of capacity: their id is E.
    """

    name: str
    scores: Scores | Callable[[nn.Module], Scores]
    read: Callable[[Any, int, int], tuple[Tensor, Tensor | None]]
    experts: str = "num_experts"
    top_k: str | int = "top_k"
    idle: str | int = 0
    bias: str | None = None
    drops: bool = False


@dataclass(frozen=True)
class RouterFamily:
    """One family of transformers, by the `model_type` of its text configuration.

    Attributes:
        routers: The classes of its routers.
        balance: By what its experts are balanced by default: families that return an auxiliary
            loss are "auxiliary", whether they have a bias or not.
        coefficient: Path in that configuration of what the auxiliary loss is multiplied by; None
            where there is no auxiliary loss.
        shared: Name of what every token goes through, beside the router; None where there is none.
        limits: What is not exact of its counts or probabilities; None where all is.
    """

    routers: tuple[KnownRouter, ...]
    balance: Balance
    coefficient: str | None = None
    shared: str | None = None
    limits: str | None = None

    @property
    def bias(self) -> str | None:
        """Where its routers keep the bias that they add to choose; None where they have none."""
        return next((router.bias for router in self.routers if router.bias), None)
