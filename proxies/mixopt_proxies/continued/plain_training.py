"""Train trials of any causal language model, one after the other, each from the same checkpoint.

What a model of the decoder's own kind does in a stack, a torch loop does here: the same sequences
in the same order for a trial, AdamW that decays matrices alone, clipping, one learning rate a step,
and the auxiliary loss of a model with experts.

Shapes: B sequences, W = T + 1 tokens, V vocabulary, S steps, P scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixopt.corpus import Corpus, document_ends
from mixopt.pretraining import (
    DocumentMasks,
    added_loss,
    auxiliary_coefficient,
    decay_groups,
    token_losses,
)
from mixopt.sampling import RateCurve, RateShape
from mixopt.trials import Progress, Training, Trial, TrialResult
from mixopt_proxies.decoder import (
    Course,
    Precision,
    TrialTraining,
    Tuner,
    check,
    check_least,
    resolve_device,
    resolve_precision,
    thread_limit,
)

ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Annealing:
    """Batches, optimiser and learning rate of a trial, by the names of the options."""

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
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Check every field."""
        check("lr", self.lr, self.lr > 0, "above 0")
        check("eps", self.eps, self.eps > 0, "above 0")
        check("min_lr", self.min_lr, 0 <= self.min_lr <= self.lr, f"from 0 to lr, {self.lr:g}")
        shapes = ("linear", "cosine", "sqrt")
        check("decay", self.decay, self.decay in shapes, "linear, cosine or sqrt")
        check_least(self, 1, "sequence_length", "batch")
        check_least(self, 0, "warmup", "weight_decay", "clip")
        check("betas", self.betas, all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.sequence_length * self.batch

    def rates(self, steps: int) -> list[float]:
        """Return the learning rate of each step of a trial."""
        warm = self.warmup if self.warmup >= 1 else self.warmup * steps
        check("warmup", self.warmup, warm < steps, f"fewer than a trial's {steps:,} steps")
        curve = RateCurve(
            "wsd", steps, self.warmup, steps - warm, self.decay, peak=self.lr, floor=self.min_lr
        )
        return [curve.rate(step) for step in range(steps)]

    def optimizer(self, model: nn.Module, moments: Mapping[str, Tensor]) -> torch.optim.AdamW:
        """Return AdamW; matrices decay, vectors do not."""
        groups = decay_groups(model, self.weight_decay)
        adam = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)
        for name, weight in model.named_parameters() if moments else ():
            found = {part: moments[f"{name}.{part}"] for part in ADAM_STATE}
            adam.state[weight] = {part: v.to(weight.device).clone() for part, v in found.items()}
        return adam


class PlainTraining(TrialTraining):
    """Trains one trial at a time, each with the weights of one model."""

    def __init__(
        self,
        model: nn.Module,
        moments: Mapping[str, Tensor],
        annealing: Annealing,
    ) -> None:
        """Keep the weights that all trials begin with."""
        super().__init__(annealing.sequence_length, annealing.batch)
        self._model, self._moments, self._annealing = model, moments, annealing
        self._first = {name: value.clone() for name, value in model.state_dict().items()}

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials, one after the other, and return a result for each."""
        device, results = resolve_device(training.device), list[TrialResult]()
        for trial in trials:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(trial.seed)  # of dropout, where a model has some
                results += super().train([trial], corpus, training, report)
        return results

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast it trains, by half a second of steps on random tokens."""
        shape, trainer = self._annealing, self._at_start(training)
        with thread_limit(training.threads):
            return Tuner(trainer, (1, shape.batch, shape.sequence_length + 1), vocab_size).rate()

    def parameters(self, vocab_size: int) -> int:
        """Return how many weights a trial has."""
        return sum(weight.numel() for weight in self._model.parameters())

    def _course(
        self, trials: Sequence[Trial], corpus: Corpus, training: Training, *, trains: bool = True
    ) -> Course:
        masks = None
        if self._annealing.mask_documents:
            masks = DocumentMasks(self._model, document_ends(corpus))
            masks.check(self._model.cpu(), self._annealing.sequence_length, corpus.vocab_size)
        return self._at_start(training, masks)

    def _at_start(self, training: Training, masks: DocumentMasks | None = None) -> PlainTrainer:
        device, steps = resolve_device(training.device), self._steps(training)
        model = self._model.to(device)
        model.load_state_dict(self._first)
        return PlainTrainer(model, self._annealing, device, steps, self._moments, masks)


class PlainTrainer(Course):
    """The training run of one trial."""

    def __init__(
        self,
        model: nn.Module,
        annealing: Annealing,
        device: torch.device,
        steps: int,
        moments: Mapping[str, Tensor],
        masks: DocumentMasks | None,
    ) -> None:
        """Begin with a model as it is, and with moments of Adam or none."""
        super().__init__(1, steps, annealing.step_tokens, device, compiled=False)
        self.model, self._annealing, self._masks = model, annealing, masks
        self._optimizer = annealing.optimizer(model, moments)
        self._rates = iter(annealing.rates(steps))
        self._coefficient = auxiliary_coefficient(model)

    def step(self, tokens_KBW: Tensor) -> None:
        """Take the next step."""
        rows_BW = tokens_KBW[0]
        self.model.train()
        output = self._output(rows_BW)
        loss = token_losses(output, rows_BW[:, 1:]).mean()
        added = added_loss(self.model, output, self._coefficient)
        total = loss if added is None else loss + added
        total.backward()  # type: ignore[no-untyped-call]
        if self._annealing.clip > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._annealing.clip)
        rate = next(self._rates, 0.0)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._note(loss.detach()[None])

    def _evaluated(self, tokens_KBW: Tensor) -> tuple[Tensor, None]:
        return self._losses_of(tokens_KBW[0]).mean(1)[None], None

    def _token_losses(self, tokens_KBW: Tensor, place_P: Tensor) -> Tensor:
        return self._losses_of(tokens_KBW[0]).flatten()[place_P][None]

    @torch.no_grad()
    def _losses_of(self, rows_BW: Tensor) -> Tensor:
        """Return the loss of each token but the first in nats, shape (B, T)."""
        self.model.eval()
        return token_losses(self._output(rows_BW), rows_BW[:, 1:])

    def _output(self, rows_BW: Tensor) -> Any:
        dtype, read_BT = resolve_precision(self._annealing.precision, self.device), rows_BW[:, :-1]
        cast = dtype != torch.float32
        known = {} if self._masks is None else self._masks.inputs(read_BT)
        with torch.autocast(self.device.type, dtype, enabled=cast):
            return self.model(read_BT, **known)
