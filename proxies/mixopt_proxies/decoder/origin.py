"""Where the members of a stack begin when it is not at random weights: one checkpoint for all.

Every member has the same weights and, where they are known, the same moments of Adam; what differs
between them is their data alone. AdamW continues as it was in the checkpoint's run.

Shapes: L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class AdamMoments(NamedTuple):
    """What Adam knows of each weight, by the names of the stack's weights.

    Attributes:
        first: Running means of the gradients.
        second: Running means of their squares.
        step: Steps that they were gathered over.
    """

    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]
    step: int


@dataclass(frozen=True, eq=False)
class StackOrigin:
    """Weights that all members begin with, and how AdamW moves them from there.

    Attributes:
        weights: Of one member, by the names of `layout`.
        rates: From how many steps there are to the learning rate of each.
        biases_LE: What balances experts by a bias; None without it.
        moments: Adam's; None begins with none.
        eps: AdamW's.
        decay_embeddings: Whether the weight decay holds for embeddings.
    """

    weights: Mapping[str, Tensor]
    rates: Callable[[int], list[float]]
    biases_LE: Tensor | None = None
    moments: AdamMoments | None = None
    eps: float = 1e-8
    decay_embeddings: bool = True
