"""Trials that continue one checkpoint: what a mixture is good for in midtraining.

Every trial has the same weights before its first step, and the moments of Adam where the
checkpoint has them; its learning rate decays over its own tokens. Its seed decides the order of its
data and nothing else, so that what two seeds differ by is the noise of order, which is less than
that of trials from random weights.

A checkpoint of the decoder (mixopt_proxies.decoder) is trained several trials at once; any other
causal language model one trial at a time, by a loop of torch: the same sequences in the same order,
AdamW that decays matrices alone, clipping, one learning rate a step, and the auxiliary loss of a
model with experts.

Shapes: B sequences, W = T + 1 tokens, V vocabulary, S steps, P scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from mixopt.corpus import (
    Corpus,
    Tokenizer,
    document_ends,
    known_tokenizer,
    saved_tokenizer,
    vocabulary_of,
)
from mixopt.errors import ConfigError, MixoptError
from mixopt.pretraining import (
    DocumentMasks,
    ModelOrigin,
    VocabularyConfig,
    added_loss,
    auxiliary_coefficient,
    decay_groups,
    open_origin,
    token_losses,
)
from mixopt.sampling import RateCurve, RateShape
from mixopt.trials import Losses, Progress, Training, Trial, TrialResult
from mixopt_proxies.decoder import (
    Above,
    Beta,
    CausalLM,
    Compile,
    Course,
    Flag,
    GroupTraining,
    Number,
    Precision,
    StackOrigin,
    TrialTraining,
    Tuner,
    Whole,
    built,
    check,
    check_known,
    check_option,
    resolve_device,
    resolve_precision,
    thread_limit,
)

_LAYERS = "layers."  # before the names of a decoder's layers, which the stack's do not have
_STATE = "state."  # before the names of the optimizer's tensors in a checkpoint
ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")
_OWN = ("min_lr", "decay", "warmup", "precision")  # of a trial, whatever its run had


@dataclass(frozen=True)
class Annealing:
    """Batches, optimiser and learning rate of a trial, by the names of the options.

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

    lr: Above
    sequence_length: Whole
    batch: Whole
    min_lr: Number = 0.0
    decay: RateShape = "linear"
    warmup: Number = 0.0
    weight_decay: Number = 0.1
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    clip: Number = 1.0
    precision: Precision = "auto"
    mask_documents: Flag = False
    eps: Above = 1e-8

    def __post_init__(self) -> None:
        """Refuse an end above the beginning."""
        check("min_lr", self.min_lr, self.min_lr <= self.lr, f"from 0 to lr, {self.lr:g}")

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
            state = {part: moments[f"{name}.{part}"] for part in ADAM_STATE}
            adam.state[weight] = {part: v.to(weight.device).clone() for part, v in state.items()}
        return adam


class PlainTraining(TrialTraining):
    """Trains one trial at a time, each with the weights of one model."""

    def __init__(
        self, model: nn.Module, moments: Mapping[str, Tensor], annealing: Annealing
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


# What a checkpoint may say, to check options before it is read.
_ANY: dict[str, object] = {"lr": 1e9, "sequence_length": 1, "batch": 1}


class ContinuedProxy:
    """Continues a checkpoint on each mixture."""

    simulates_epochs = True
    option_names = tuple(f.name for f in fields(Annealing) if f.name != "precision")

    def __init__(
        self,
        *,
        start: str,
        start_hash: str | None = None,
        optimizer: bool | None = None,
        precision: Precision = "auto",
        compile: Compile = "auto",
        **options: object,
    ) -> None:
        """Note what the trials begin with, and what is another than in its run (`Annealing`)."""
        self._name, self._expected_hash = start, start_hash
        check_option("optimizer", Flag | None, optimizer)
        check_option("compile", Compile, compile)
        check_known(options, self.option_names)
        self._optimizer, self._compile = optimizer, compile
        given = {name: value for name, value in options.items() if value is not None}
        self._given: dict[str, object] = given | {"precision": precision}
        built(Annealing, _ANY | self._given)

    def start_hash(self) -> str:
        """Return a hash of the weights that the trials begin with."""
        return self._origin.sha256

    def check_tokenizer(self, name: str) -> None:
        """Check that a corpus of this tokenizer will have the tokens of the checkpoint."""
        tokenizer = known_tokenizer(name)
        if tokenizer is not None:
            self._check_ids(name, tokenizer, tokenizer.vocab_size)

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return how many trials to train together; 1 of a model that is not the decoder."""
        return self._ready(corpus).group_size(corpus, training)

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials and return a result for each, in their order."""
        return self._ready(corpus).train(trials, corpus, training, report)

    def base_losses(self, corpus: Corpus, training: Training) -> Losses:
        """Return the held-out losses of the checkpoint itself, before any step."""
        return self._ready(corpus).origin_losses(corpus, training)

    def parameters(self, vocab_size: int) -> int:
        """Return how many weights a trial has; `vocab_size` is the model's own."""
        return sum(weight.numel() for weight in self._module.parameters())

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast one worker trains, by half a second of steps or so."""
        return self._trainer.tokens_per_second(vocab_size, training)

    @cached_property
    def _origin(self) -> ModelOrigin:
        with self._named():
            return open_origin(self._name)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Have errors name the field of an experiment."""
        try:
            yield
        except MixoptError as error:
            raise type(error)(str(error).replace("model.from:", "proxy.from:")) from error

    @cached_property
    def _module(self) -> nn.Module:
        return self._origin.module()

    @cached_property
    def _moments(self) -> dict[str, Tensor]:
        """Adam's, by the names of the weights and of Adam's state, such as `norm.exp_avg`."""
        if self._optimizer is False:
            return {}
        moments = {
            name.removeprefix(_STATE): value
            for name, value in (self._origin.optimizer_tensors() or {}).items()
            if name.rpartition(".")[2] in ADAM_STATE
        }
        if self._optimizer and not moments:
            raise ConfigError(
                f"proxy.options.optimizer: {self._name} has no moments of Adam; leave it out"
            )
        return moments

    def _ready(self, corpus: Corpus) -> GroupTraining | PlainTraining:
        expected, here = self._expected_hash, self._origin.sha256
        if expected is not None and here != expected:
            raise ConfigError(
                f"proxy.from: {self._name}: has changed since the sweep began: its weights hash to"
                f" {here[:12]}, and were {expected[:12]}; restore the checkpoint, or redo the sweep"
                " with: mixopt run --from sweep"
            )
        known = self._origin.vocabulary
        tokenizer = None if known is None else saved_tokenizer(corpus.path, corpus.tokenizer)
        self._check_ids(corpus.tokenizer, tokenizer, corpus.vocab_size)
        return self._trainer

    def _check_ids(self, name: str, tokenizer: Tokenizer | None, ids: int) -> None:
        """Check that the ids of a tokenizer are the model's, by their number if by nothing else."""
        sha256 = None if tokenizer is None else vocabulary_of(tokenizer)[1]
        with self._named():
            self._origin.compared(VocabularyConfig(tokenizer=name, ids=ids, sha256=sha256))

    @cached_property
    def _trainer(self) -> GroupTraining | PlainTraining:
        model = self._module
        if isinstance(model, CausalLM):
            return _stacked_from(model, self._moments, self._annealing, self._compile)
        return PlainTraining(model, self._moments, self._annealing)

    @cached_property
    def _annealing(self) -> Annealing:
        values = self._of_run() | self._given
        step, why = self._origin.step, f"{self._name} does not say how it was trained"
        if step is not None:
            why = (
                f"the rate of {self._name} at step {step:,} is 0; give the rate that the decay"
                " begins with, or start from a checkpoint before its decay"
            )
        for option in ("lr", "sequence_length", "batch"):
            if option not in values:
                raise ConfigError(f"proxy.options.{option}: is missing: {why}")
        annealing: Annealing = built(Annealing, values)
        return annealing

    def _of_run(self) -> dict[str, object]:
        """Return how the run of the checkpoint was trained, as far as it is known."""
        run, step = self._origin.run, self._origin.step
        if run is None or step is None:
            return {}
        known = {f.name for f in fields(Annealing)} - {*_OWN, "lr"}
        values = {name: getattr(run.training, name) for name in known}
        rate = run.training.rates.rate(step)
        return values | ({"lr": rate} if rate > 0 else {})


def _stacked_from(
    model: CausalLM, moments: Mapping[str, Tensor], annealing: Annealing, compile: Compile
) -> GroupTraining:
    """Return what trains trials together, all of them from one checkpoint of the decoder."""
    size = replace(
        model.size,
        sequence_length=annealing.sequence_length,
        batch=annealing.batch,
        weight_decay=annealing.weight_decay,
        betas=annealing.betas,
        clip=annealing.clip,
    )
    weights = {n.removeprefix(_LAYERS): w.detach() for n, w in model.named_parameters()}
    of_state: dict[str, dict[str, Tensor]] = {}
    for name, value in moments.items():
        weight, _, part = name.rpartition(".")
        of_state.setdefault(part, {})[weight.removeprefix(_LAYERS)] = value
    step = max(map(int, of_state.pop("step", {"none": 0}).values()))
    origin = StackOrigin(weights, annealing.rates, of_state, step, annealing.eps)
    return GroupTraining(
        size,
        precision=annealing.precision,
        compile=compile,
        origin=origin,
        vocab_size=len(model.embedding),
        mask_documents=annealing.mask_documents,
    )
