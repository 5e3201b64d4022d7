"""Train trials of any causal language model, one after the other, each from the same checkpoint.

What a model of the decoder's own kind does in a stack, a torch loop does here: the same sequences
in the same order for a trial, AdamW that decays matrices alone, clipping, one learning rate a step,
and the auxiliary loss of a model with experts.

Shapes: B sequences, W = T + 1 tokens, V vocabulary, S steps, P scored tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn, optim

from mixopt.corpus import Corpus, document_ends
from mixopt.pretraining import (
    DocumentMasks,
    added_loss,
    auxiliary_coefficient,
    decay_groups,
    token_losses,
)
from mixopt.sampling import RateCurve, RateShape
from mixopt.trials import Losses, Progress, Training, Trial, TrialResult
from mixopt_proxies.decoder import (
    Evaluations,
    HeldOutTasks,
    HeldOutWindows,
    MemberCourse,
    Precision,
    TrialBatches,
    check,
    moved_to,
    pools_of,
    resolve_device,
    resolve_precision,
    result_of,
    steps_of,
    thread_limit,
)

_REPORT_SECONDS = 0.5
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
        weight_decay: On matrices and embeddings.
        betas: AdamW's.
        clip: Largest gradient norm; 0 does not clip.
        precision: Of matrix products.
        mask_documents: Whether documents of a sequence do not see each other.
        eps: AdamW's.
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
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Check every field."""
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
    def row_shape(self) -> tuple[int, int]:
        """Tokens of a sequence, and sequences of a step."""
        return self.sequence_length, self.batch

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


class PlainTraining:
    """Trains one trial at a time, each with the weights of one model."""

    def __init__(
        self,
        model: nn.Module,
        moments: Mapping[str, Tensor],
        annealing: Annealing,
    ) -> None:
        """Keep the weights that all trials begin with."""
        self._model, self._moments, self._annealing = model, moments, annealing
        self._coefficient = auxiliary_coefficient(model)
        self._first = {name: value.clone() for name, value in model.state_dict().items()}
        self._masks: DocumentMasks | None = None

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return 1: these models are not stacked."""
        shape = self._annealing
        tokens = steps_of(training, shape.step_tokens) * shape.step_tokens
        pools_of(corpus, tokens, shape.sequence_length, training)  # which checks the texts
        return 1

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials and return a result for each, in their order."""
        shape, steps = self._annealing, steps_of(training, self._annealing.step_tokens)
        device = resolve_device(training.device)
        self._masks = self._masks_of(corpus)
        evaluations = Evaluations.of(corpus, *shape.row_shape, training, device)
        total = len(trials) * steps * shape.step_tokens
        results = []
        with thread_limit(training.threads):
            for done, trial in enumerate(trials):
                before = done * steps * shape.step_tokens

                def note(taken: int, doing: Any = "training", before: int = before) -> None:
                    report(Progress(before + taken * shape.step_tokens, total, doing))

                length, batch = shape.row_shape
                batches = TrialBatches([trial], corpus, training, batch=batch, length=length)
                with torch.random.fork_rng([device] if device.type == "cuda" else []):
                    torch.manual_seed(trial.seed)  # of dropout, where a model has some
                    results.append(self._trained(trial, batches, steps, device, evaluations, note))
        report(Progress(total, total))
        return results

    def origin_losses(self, corpus: Corpus, training: Training) -> Losses:
        """Return the held-out losses of the checkpoint itself, on what trials are evaluated on."""
        device = resolve_device(training.device)
        evaluations = Evaluations.of(corpus, *self._annealing.row_shape, training, device)
        self._masks = self._masks_of(corpus)
        with thread_limit(training.threads):
            model = self._at_start(device)
            losses = self._evaluated(model, evaluations.windows, 0)
            return replace(losses, tasks=self._scored(model, evaluations.tasks))

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast it trains, by the second of two steps on random tokens."""
        device, shape = resolve_device(training.device), self._annealing
        rows_BW = torch.randint(vocab_size, (shape.batch, shape.sequence_length + 1), device=device)
        with thread_limit(training.threads):
            model = self._at_start(device)
            optimizer = shape.optimizer(model, {})
            for _ in range(2):
                start = time.monotonic()
                float(self._step(model, optimizer, rows_BW, 0.0))
        return shape.step_tokens / max(time.monotonic() - start, 1e-9)

    def parameters(self) -> int:
        """Return how many weights a trial has."""
        return sum(weight.numel() for weight in self._model.parameters())

    def _masks_of(self, corpus: Corpus) -> DocumentMasks | None:
        """Return what keeps documents apart, where that is asked for."""
        if not self._annealing.mask_documents:
            return None
        masks = DocumentMasks(self._model, document_ends(corpus))
        masks.check(self._model.cpu(), self._annealing.sequence_length, corpus.vocab_size)
        return masks

    def _at_start(self, device: torch.device) -> nn.Module:
        model = self._model.to(device)
        model.load_state_dict(self._first)
        return model

    def _trained(
        self,
        trial: Trial,
        batches: TrialBatches,
        steps: int,
        device: torch.device,
        evaluations: Evaluations,
        report: Callable[..., None],
    ) -> TrialResult:
        started, reported, few = time.monotonic(), 0.0, evaluations.few
        model, shape = self._at_start(device), self._annealing
        optimizer = shape.optimizer(model, self._moments)
        rates, losses = shape.rates(steps), torch.zeros(steps, device=device)
        curve: list[Losses] = []
        sampled: list[list[Losses]] = []
        for taken in range(steps):
            if time.monotonic() - reported > _REPORT_SECONDS:
                report(taken)
                reported = time.monotonic()
            rows_BW = torch.from_numpy(batches.block(taken, taken + 1)[0, 0]).to(device)
            losses[taken] = self._step(model, optimizer, rows_BW, rates[taken])
            tokens = (taken + 1) * shape.step_tokens
            if few is not None and taken + 1 in evaluations.few_at:
                sampled.append([self._evaluated(model, few, tokens)])
            if taken + 1 in evaluations.at:
                report(taken + 1, "evaluating")
                found = self._evaluated(model, evaluations.windows, tokens)
                curve.append(replace(found, tasks=self._scored(model, evaluations.tasks)))
        if few is not None:
            last = [self._evaluated(model, few, steps * shape.step_tokens)]
            curve = [*(p[0] for p in moved_to(curve[-1:], sampled, last)), *curve]
        course = MemberCourse(losses.cpu(), tuple(curve))
        seconds = time.monotonic() - started
        return result_of(trial, course, shape.step_tokens, self.parameters(), seconds)

    def _step(
        self, model: nn.Module, optimizer: optim.Optimizer, rows_BW: Tensor, rate: float
    ) -> Tensor:
        model.train()
        output = self._output(model, rows_BW)
        loss = token_losses(output, rows_BW[:, 1:].long()).mean()
        added = added_loss(model, output, self._coefficient)
        total = loss if added is None else loss + added
        total.backward()  # type: ignore[no-untyped-call]
        if self._annealing.clip > 0:
            nn.utils.clip_grad_norm_(model.parameters(), self._annealing.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    def _evaluated(self, model: nn.Module, held_out: HeldOutWindows, tokens: int) -> Losses:
        model.eval()

        def sequence_losses(rows_KBW: Tensor) -> Tensor:
            with torch.no_grad():
                return self._losses(model, rows_KBW[0]).mean(1)[None]

        (losses,) = held_out.losses(sequence_losses, 1, tokens)
        return losses

    def _scored(self, model: nn.Module, tasks: HeldOutTasks) -> dict[str, float]:
        model.eval()

        def token_losses(rows_KBW: Tensor, place_P: Tensor) -> Tensor:
            with torch.no_grad():
                return self._losses(model, rows_KBW[0]).flatten()[place_P][None]

        (scores,) = tasks.scores(token_losses, 1)
        return scores

    def _losses(self, model: nn.Module, rows_BW: Tensor) -> Tensor:
        """Return the loss of each token but the first in nats, shape (B, T)."""
        return token_losses(self._output(model, rows_BW), rows_BW[:, 1:].long())

    def _output(self, model: nn.Module, rows_BW: Tensor) -> Any:
        read_BT = rows_BW[:, :-1].long()
        with self._cast(rows_BW.device):
            known = {} if self._masks is None else self._masks.inputs(read_BT)
            return model(read_BT, **known)

    def _cast(self, device: torch.device) -> AbstractContextManager[Any]:
        dtype = resolve_precision(self._annealing.precision, device)
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
