"""Trials that continue one checkpoint, to compare mixtures for midtraining.

All trials start with the same weights, and with the moments of Adam if the checkpoint has them; the
learning rate of a trial decays over its own tokens. The seed determines only the order of the data,
so that two seeds differ only by the noise of the order, which is smaller than that of trials from
random weights.

For a checkpoint of the decoder (mixopt_proxies.decoder) several trials train together; any other
causal language model trains one trial at a time in a torch loop: the same sequences in the same
order, AdamW with decay only on matrices, clipping, one learning rate per step, and the auxiliary
loss of a model with experts.

Shapes: B sequences, W = T + 1 tokens, V vocabulary, S steps, P scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import torch
from pydantic import ConfigDict
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
from mixopt.errors import ConfigError
from mixopt.pretraining import (
    DocumentMasks,
    ModelOrigin,
    VocabularyConfig,
    added_loss,
    field_named,
    make_optimizer,
    open_origin,
    token_losses,
)
from mixopt.routing import auxiliary_coefficient
from mixopt.sampling import RateCurve, RateShape
from mixopt.sweeps import Progress, Training
from mixopt.trials import Losses, Trial, TrialResult
from mixopt_proxies.decoder import (
    Above,
    CausalLM,
    Course,
    Flag,
    GroupTraining,
    Number,
    StackOrigin,
    StepOptions,
    TrialTraining,
    Tuner,
    built,
    check,
    option_errors,
    resolve_device,
    resolve_precision,
    thread_limit,
)

_LAYERS = "layers."  # prefix of a decoder's layers; the stack's names do not have it
_STATE = "state."  # prefix of the optimizer's tensors in a checkpoint
ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")
# Stand-ins for the checkpoint's values, to check options before it is read.
_PLACEHOLDERS: dict[str, object] = {"lr": 1e9, "sequence_length": 1, "batch": 1}
# Options that are those of the checkpoint's run unless given.
_INHERITED = (
    "sequence_length", "batch", "weight_decay", "betas", "eps", "clip", "mask_documents"
)  # fmt: skip
Moments = dict[str, dict[str, Tensor]]  # Adam's state by its names, then by names of weights


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Annealing(StepOptions):
    """The steps of a trial, by the names of the options.

    Attributes:
        min_lr: Learning rate at the end.
        decay: Shape of the decay: `linear`, `cosine` or `sqrt` (1 - sqrt(finished fraction)).
        eps: Epsilon of AdamW.
        optimizer: Whether to start from the checkpoint's moments of Adam; None: if it has them.
    """

    min_lr: Number = 0.0
    decay: RateShape = "linear"
    eps: Above = 1e-8
    optimizer: Flag | None = None

    def __post_init__(self) -> None:
        """Raise if `min_lr` is above `lr`."""
        check("min_lr", self.min_lr, self.min_lr <= self.lr, f"from 0 to lr, {self.lr:g}")

    def rates(self, steps: int) -> list[float]:
        """Return the learning rate of each step of a trial."""
        warm = self.warmup if self.warmup >= 1 else self.warmup * steps
        with option_errors():
            check("warmup", self.warmup, warm < steps, f"fewer than a trial's {steps:,} steps")
        curve = RateCurve(
            "wsd", steps, self.warmup, steps - warm, self.decay, peak=self.lr, floor=self.min_lr
        )
        return [curve.rate(step) for step in range(steps)]


class PlainTraining(TrialTraining):
    """Trains one trial at a time, each from the weights of one model."""

    def __init__(self, model: nn.Module, moments: Moments, annealing: Annealing) -> None:
        """Store the initial weights of all trials."""
        super().__init__(annealing.sequence_length, annealing.batch)
        self._model = model
        self._moments = moments
        self._annealing = annealing
        self._initial_state = {name: value.clone() for name, value in model.state_dict().items()}

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials one by one, and return a result for each."""
        device = resolve_device(training.device)
        devices = [device] if device.type == "cuda" else []
        results: list[TrialResult] = []
        for trial in trials:
            with torch.random.fork_rng(devices):
                torch.manual_seed(trial.seed)  # for dropout
                results += super().train([trial], corpus, training, report)
        return results

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Measure tokens per second in half a second of steps on random tokens."""
        shape = (1, self._annealing.batch, self._annealing.sequence_length + 1)
        trainer = self._new_trainer(training)
        with thread_limit(training.threads):
            return Tuner(trainer, shape, vocab_size).rate()

    def parameters(self, vocab_size: int) -> int:
        """Return the number of weights of a trial."""
        return sum(weight.numel() for weight in self._model.parameters())

    def _course(
        self, trials: Sequence[Trial], corpus: Corpus, training: Training, *, trains: bool = True
    ) -> Course:
        masks = None
        if self._annealing.mask_documents:
            masks = DocumentMasks(
                self._model.cpu(),
                document_ends(corpus),
                self._annealing.sequence_length,
                corpus.vocab_size,
            )
        return self._new_trainer(training, masks)

    def _new_trainer(self, training: Training, masks: DocumentMasks | None = None) -> PlainTrainer:
        device = resolve_device(training.device)
        steps = self._steps(training)
        model = self._model.to(device)
        model.load_state_dict(self._initial_state)
        return PlainTrainer(model, self._annealing, device, steps, self._moments, masks)


class PlainTrainer(Course):
    """The training run of one trial."""

    def __init__(
        self,
        model: nn.Module,
        annealing: Annealing,
        device: torch.device,
        steps: int,
        moments: Moments,
        masks: DocumentMasks | None,
    ) -> None:
        """Start from a model's current weights, with moments of Adam or none."""
        super().__init__(1, steps, annealing.step_tokens, device, compiled=False)
        self.model = model
        self._annealing = annealing
        self._masks = masks
        self._optimizer = make_optimizer(model, annealing)
        if moments:
            for name, weight in model.named_parameters():
                state = {part: values[name].to(device).clone() for part, values in moments.items()}
                self._optimizer.state[weight] = state
        self._rates = iter(annealing.rates(steps))
        self._coefficient = auxiliary_coefficient(model)

    def step(self, tokens_KBW: Tensor) -> None:
        """Run the next step."""
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
        self._record(loss.detach()[None])

    def _evaluated(self, tokens_KBW: Tensor) -> tuple[Tensor, None]:
        return self._losses_of(tokens_KBW[0]).mean(1)[None], None

    def _token_losses(self, tokens_KBW: Tensor, place_P: Tensor) -> Tensor:
        return self._losses_of(tokens_KBW[0]).flatten()[place_P][None]

    @torch.no_grad()
    def _losses_of(self, rows_BW: Tensor) -> Tensor:
        """Return the loss of each token except the first, in nats, shape (B, T)."""
        self.model.eval()
        return token_losses(self._output(rows_BW), rows_BW[:, 1:])

    def _output(self, rows_BW: Tensor) -> Any:
        input_BT = rows_BW[:, :-1]
        dtype = resolve_precision(self._annealing.precision, self.device)
        cast = dtype != torch.float32
        masks = {} if self._masks is None else self._masks.inputs(input_BT)
        with torch.autocast(self.device.type, dtype, enabled=cast):
            return self.model(input_BT, **masks)


class ContinuedProxy:
    """Continues a checkpoint on each mixture."""

    simulates_epochs = True
    option_names = tuple(field.name for field in fields(Annealing))

    def __init__(self, *, start: str, start_hash: str | None = None, **options: object) -> None:
        """Store the checkpoint's name and the options that override its run's (`Annealing`)."""
        self._name = start
        self._expected_hash = start_hash
        self._options = {name: value for name, value in options.items() if value is not None}
        built(Annealing, _PLACEHOLDERS | self._options)

    @property
    def resumes(self) -> bool:
        """Whether a trial can be trained in parts: only of the decoder."""
        return isinstance(self._module, CausalLM)

    def start_hash(self) -> str:
        """Return a hash of the initial weights of all trials."""
        return self._origin.sha256

    def check_tokenizer(self, name: str) -> None:
        """Check that the ids of this tokenizer are those of the checkpoint."""
        tokenizer = known_tokenizer(name)
        if tokenizer is not None:
            self._check_ids(name, tokenizer, tokenizer.vocab_size)

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return the number of trials that train together; 1 for models other than the decoder."""
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
        """Return the number of weights of a trial; the model ignores `vocab_size`."""
        return sum(weight.numel() for weight in self._module.parameters())

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Measure the tokens per second of one worker, in about half a second of steps."""
        return self._trainer.tokens_per_second(vocab_size, training)

    @cached_property
    def _origin(self) -> ModelOrigin:
        with field_named("proxy.from"):
            return open_origin(self._name)

    @cached_property
    def _module(self) -> nn.Module:
        return self._origin.module()

    @cached_property
    def _moments(self) -> Moments:
        """The state of Adam by its names (`exp_avg`), then by names of weights; empty: none."""
        moments: Moments = {}
        if self._annealing.optimizer is not False:
            for name, value in self._origin.optimizer_tensors().items():
                weight, _, part = name.removeprefix(_STATE).rpartition(".")
                if part in ADAM_STATE:
                    moments.setdefault(part, {})[weight] = value
        if self._annealing.optimizer and not moments:
            raise ConfigError(
                f"proxy.options.optimizer: {self._name} has no moments of Adam; leave it out"
            )
        return moments

    def _ready(self, corpus: Corpus) -> GroupTraining | PlainTraining:
        expected = self._expected_hash
        current = self._origin.sha256
        if expected is not None and current != expected:
            raise ConfigError(
                f"proxy.from: {self._name}: has changed since the sweep began: the hash of its"
                f" weights is {current[:12]}, and was {expected[:12]}; restore the checkpoint, or"
                " redo the sweep with: mixopt run --from sweep"
            )
        tokenizer = None
        if self._origin.vocabulary is not None:
            tokenizer = saved_tokenizer(corpus.path, corpus.tokenizer)
        self._check_ids(corpus.tokenizer, tokenizer, corpus.vocab_size)
        return self._trainer

    def _check_ids(self, name: str, tokenizer: Tokenizer | None, ids: int) -> None:
        """Check that the ids of a tokenizer are the model's, at least by their number."""
        sha256 = None if tokenizer is None else vocabulary_of(tokenizer)[1]
        with field_named("proxy.from"):
            self._origin.compared(VocabularyConfig(tokenizer=name, ids=ids, sha256=sha256))

    @cached_property
    def _trainer(self) -> GroupTraining | PlainTraining:
        model = self._module
        annealing = self._annealing
        if not isinstance(model, CausalLM):
            return PlainTraining(model, self._moments, annealing)
        moments = {part: _of_stack(values) for part, values in self._moments.items()}
        steps_by_weight = moments.pop("step", {})
        origin = StackOrigin(
            weights=_of_stack(dict(model.named_parameters())),
            rates=annealing.rates,
            moments=moments,
            step=max(map(int, steps_by_weight.values()), default=0),
            eps=annealing.eps,
        )
        steps = {field.name: getattr(annealing, field.name) for field in fields(StepOptions)}
        return GroupTraining(replace(model.size, **steps), origin)

    @cached_property
    def _annealing(self) -> Annealing:
        values = self._run_values() | self._options
        step = self._origin.step
        why = f"{self._name} does not state how it was trained"
        if step is not None:
            why = (
                f"the learning rate of {self._name} at step {step:,} is 0; set the rate at the"
                " start of the decay, or start from a checkpoint before its decay"
            )
        for option in ("lr", "sequence_length", "batch"):
            if option not in values:
                raise ConfigError(f"proxy.options.{option}: is missing: {why}")
        annealing: Annealing = built(Annealing, values)
        return annealing

    def _run_values(self) -> dict[str, object]:
        """Return the known training options of the checkpoint's run."""
        run = self._origin.run
        step = self._origin.step
        if run is None or step is None:
            return {}
        values: dict[str, object] = {name: getattr(run.training, name) for name in _INHERITED}
        rate = run.training.rates.rate(step)
        if rate > 0:
            values["lr"] = rate
        return values


def _of_stack(values: dict[str, Any]) -> dict[str, Tensor]:
    """Return values of a decoder's weights by the stack's names."""
    return {name.removeprefix(_LAYERS): value.detach() for name, value in values.items()}
