"""What the systems have in common: a record of what was really used, and data by label.

Shapes: B samples, S tokens of one, N choices, E experts, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, SAMPLES, TOKENS = 8, 8, 6


@dataclass(frozen=True)
class Used:
    """What a module multiplied its experts' outputs by in one pass, and what it chose by.

    Attributes:
        gates_NE: Factor of each expert for each choice; 0 where it was not used.
        probability_NE: Of each expert.
        weighed: Whether RouterStats was told the factors.
    """

    gates_NE: Tensor
    probability_NE: Tensor
    weighed: bool


class Recorded(nn.Module):
    """A module that writes down what it uses, for a count by hand; it knows nothing of the tap."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[Used] = []

    def use(self, gates: Tensor, probability: Tensor, *, weighed: bool = False) -> Tensor:
        """Write down the gates, and return them to be used."""
        experts = gates.shape[-1]
        self.used.append(
            Used(
                gates.detach().reshape(-1, experts),
                probability.detach().reshape(-1, experts),
                weighed,
            )
        )
        return gates


@dataclass(frozen=True)
class Batch:
    """Inputs of a model, what it should return, and labels of what is routed.

    `labels` and `mask` are what `RouterStats.domains` is given.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    labels: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class System:
    """A small system with experts and its task.

    Attributes:
        name: As its paper calls it.
        label: What a label is.
        labels: Names of the labels.
        build: Makes the model.
        draw: Makes a batch from a generator.
        after_step: What the system does to its router after a step; None for nothing.
    """

    name: str
    label: str
    labels: tuple[str, ...]
    build: Callable[[], nn.Module]
    draw: Callable[[torch.Generator], Batch]
    after_step: Callable[[Any], None] | None = None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean square of the error, of what is no padding."""
        error = (model(*batch.inputs) - batch.targets).square().mean(-1)
        if batch.mask is None or batch.mask.shape != error.shape:
            return error.mean()
        return (error * batch.mask).sum() / batch.mask.sum()


def top_k_gates(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the ids of the largest scores, and the scores where they are chosen, else 0."""
    values, ids = scores.topk(top_k, dim=-1)
    return ids, torch.zeros_like(scores).scatter(-1, ids, values)


def of_sequences(labels: int, *, tokens: int = TOKENS) -> Callable[[torch.Generator], Batch]:
    """Return what draws sequences whose label moves their inputs and says what is wanted."""
    fixed = torch.Generator().manual_seed(7)
    centres_LW = 2 * torch.randn(labels, WIDTH, generator=fixed)
    maps_LWW = torch.randn(labels, WIDTH, WIDTH, generator=fixed) / WIDTH**0.5

    def draw(drawn: torch.Generator) -> Batch:
        label_B = torch.randint(labels, (SAMPLES,), generator=drawn)
        noise_BSW = torch.randn(SAMPLES, tokens, WIDTH, generator=drawn)
        x_BSW = centres_LW[label_B][:, None] + noise_BSW / 2
        targets_BSW = torch.einsum("bsw,bwv->bsv", x_BSW, maps_LWW[label_B])
        mask_BS = torch.ones(SAMPLES, tokens, dtype=torch.long)
        mask_BS[0, tokens // 2 :] = 0
        return Batch((x_BSW,), targets_BSW, label_B, mask_BS)

    return draw
