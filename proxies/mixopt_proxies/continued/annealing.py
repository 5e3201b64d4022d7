"""How trials from a checkpoint are trained: the last phase of a WSD schedule, and its batches.

The learning rate decays from where the checkpoint's run stood, or from a given rate, to its floor
over all of a trial's tokens, after a short warm-up if one is asked for. What is not given is that
of the run that made the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixopt.pretraining import ADAM_EPS, decay_groups
from mixopt.sampling import RateCurve, RateShape
from mixopt_proxies.decoder import Precision, check

ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Annealing:
    """Batches, optimiser and learning rate of a trial.

    Attributes:
        lr: Learning rate from which it decays.
        min_lr: At the end.
        decay: How it gets there: `linear`, `cosine` or `sqrt` (1 - sqrt of what is done).
        warmup: Steps before the decay; below 1, a fraction of all steps.
        sequence_length: Tokens predicted in a row.
        batch: Sequences of a step.
        weight_decay: On matrices, and on embeddings where `decay_embeddings` is set.
        betas: AdamW's.
        clip: Largest gradient norm; 0 does not clip.
        precision: Of matrix products.
        mask_documents: Whether documents of a sequence do not see each other.
        eps: AdamW's.
        decay_embeddings: Whether the weight decay holds for embeddings.
    """

    lr: float
    min_lr: float
    decay: RateShape
    warmup: float
    sequence_length: int
    batch: int
    weight_decay: float
    betas: tuple[float, float]
    clip: float
    precision: Precision
    mask_documents: bool = False
    eps: float = ADAM_EPS
    decay_embeddings: bool = True

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: One is out of range.
        """
        check("lr", self.lr, self.lr > 0, "above 0")
        check("eps", self.eps, self.eps > 0, "above 0")
        check("min_lr", self.min_lr, 0 <= self.min_lr <= self.lr, f"from 0 to lr, {self.lr:g}")
        shapes = ("linear", "cosine", "sqrt")
        check("decay", self.decay, self.decay in shapes, "linear, cosine or sqrt")
        for name in ("sequence_length", "batch"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("warmup", "weight_decay", "clip"):
            check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        check("betas", self.betas, all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.sequence_length * self.batch

    def rates(self, steps: int) -> list[float]:
        """Return the learning rate of each step of a trial.

        Raises:
            ConfigError: The warm-up takes all of it.
        """
        warm = self.warmup if self.warmup >= 1 else self.warmup * steps
        check("warmup", self.warmup, warm < steps, f"fewer than a trial's {steps:,} steps")
        curve = RateCurve(
            "wsd", steps, self.warmup, steps - warm, self.decay, peak=self.lr, floor=self.min_lr
        )
        return [curve.rate(step) for step in range(steps)]

    def optimizer(self, model: nn.Module, moments: Mapping[str, Tensor]) -> torch.optim.AdamW:
        """Return AdamW; matrices decay, embeddings where that is so, vectors do not.

        Args:
            model: On its device.
            moments: What it begins with, by the names of the model's weights and of Adam's state,
                such as `norm.exp_avg`; empty for none.
        """
        groups = decay_groups(model, self.weight_decay, embeddings=self.decay_embeddings)
        adam = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)
        for name, weight in model.named_parameters() if moments else ():
            found = {part: moments[f"{name}.{part}"] for part in ADAM_STATE}
            adam.state[weight] = {part: v.to(weight.device).clone() for part, v in found.items()}
        return adam
