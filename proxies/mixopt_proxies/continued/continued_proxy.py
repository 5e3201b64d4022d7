"""Trials that continue one checkpoint: what a mixture is good for in midtraining.

Every trial has the same weights before its first step, and the moments of Adam where the
checkpoint has them; its learning rate decays over its own tokens. Its seed decides the order of its
data and nothing else, so that what two seeds differ by is the noise of order, which is less than
that of trials from random weights.

A checkpoint of the decoder (mixopt_proxies.decoder) is trained several trials at once; any other
causal language model one trial at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TypedDict, Unpack

from torch import nn

from mixopt.config import is_recipe
from mixopt.corpus import Corpus
from mixopt.errors import ConfigError
from mixopt.pretraining import ADAM_EPS, balance_alone
from mixopt.sampling import RateShape
from mixopt.system import Say
from mixopt.trials import Losses, Progress, Training, Trial, TrialResult
from mixopt_proxies.continued.annealing import Annealing
from mixopt_proxies.continued.plain_training import PlainTraining
from mixopt_proxies.continued.stacked_start import stacked_from
from mixopt_proxies.continued.starting_point import StartingPoint, StartRecipe
from mixopt_proxies.decoder import CausalLM, Compile, GroupTraining, Precision, check, of_kind


class AnnealingOptions(TypedDict, total=False):
    """Options that say how trials are trained (`Annealing` says what they are).

    One that is left out, or None, is as the run of the checkpoint was trained.
    """

    lr: float | None
    min_lr: float | None
    decay: RateShape | None
    warmup: float | None
    sequence_length: int | None
    batch: int | None
    weight_decay: float | None
    betas: tuple[float, float] | None
    clip: float | None
    mask_documents: bool | None
    eps: float | None
    decay_embeddings: bool | None


_KINDS: dict[str, type] = {
    "lr": float,
    "min_lr": float,
    "decay": str,
    "warmup": float,
    "sequence_length": int,
    "batch": int,
    "weight_decay": float,
    "betas": tuple,
    "clip": float,
    "mask_documents": bool,
    "eps": float,
    "decay_embeddings": bool,
}


class ContinuedProxy:
    """Continues a checkpoint on each mixture."""

    simulates_epochs = True

    def __init__(
        self,
        *,
        start: str,
        start_hash: str | None = None,
        optimizer: bool | None = None,
        precision: Precision = "auto",
        compile: Compile = "auto",
        **options: Unpack[AnnealingOptions],
    ) -> None:
        """Note what the trials begin with; it is opened when it is needed.

        Args:
            start: A run of `mixopt pretrain`, one of its checkpoints, or a model of transformers;
                or the YAML of a pretraining, for `make_start`.
            start_hash: What `start_hash` must be; a worker refuses another checkpoint.
            optimizer: Whether Adam's moments are taken over; where they are there if omitted.
            precision: `float32`, `bfloat16`, or `auto`: bf16 where the hardware has it.
            compile: true, false, or `auto`, of the decoder's stack.
            **options: How trials are trained, such as `lr=1e-3` (`Annealing`).

        Raises:
            ConfigError: A value that cannot be right.
        """
        self._name, self._wanted = start, start_hash
        check("optimizer", optimizer, optimizer in (None, True, False), "true or false")
        check("compile", compile, compile in ("auto", True, False), "auto, true or false")
        kinds = ("auto", "float32", "bfloat16")
        check("precision", precision, precision in kinds, "auto, float32 or bfloat16")
        self._optimizer, self._precision, self._compile = optimizer, precision, compile
        given = {name: value for name, value in options.items() if value is not None}
        self._given = {name: of_kind(name, value, _KINDS[name]) for name, value in given.items()}

    def start_hash(self) -> str:
        """Return a hash of the weights that the trials begin with, or of the recipe for them.

        Raises:
            MixoptError: They cannot be read.
        """
        opened = self._opened
        if isinstance(opened, StartRecipe):
            return f"recipe:{opened.fingerprint}"
        return opened.origin.sha256

    def check_tokenizer(self, name: str) -> None:
        """Check that a corpus of this tokenizer will have the tokens of the checkpoint.

        A recipe's are known once it is trained.

        Raises:
            ConfigError: It will not.
        """
        opened = self._opened
        if isinstance(opened, StartingPoint):
            opened.check_tokenizer(name)

    def make_start(self, folder: Path, say: Say) -> None:
        """Train a recipe into a folder, or resume that; nothing to do where it is trained.

        Raises:
            MixoptError: It cannot be trained, or was asked to stop before its end.
        """
        opened = self._opened
        if isinstance(opened, StartRecipe):
            opened.train(folder, say)

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return how many trials to train together; 1 of a model that is not the decoder.

        Raises:
            ConfigError: The corpus has another tokenizer, or the checkpoint has changed.
            CorpusError: A domain, or its pool, with fewer tokens than one sequence.
        """
        return self._ready(corpus).group_size(corpus, training)

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials and return a result for each, in their order.

        Raises:
            ConfigError: The corpus has another tokenizer, or the checkpoint has changed.
            CorpusError: A domain with fewer tokens than one sequence.
        """
        return self._ready(corpus).train(trials, corpus, training, report)

    def base_losses(self, corpus: Corpus, training: Training) -> Losses:
        """Return the held-out losses of the checkpoint itself, before any step.

        Raises:
            ConfigError: The corpus has another tokenizer, or the checkpoint has changed.
            CorpusError: A domain with fewer held-out tokens than one sequence.
        """
        return self._ready(corpus).origin_losses(corpus, training)

    def parameters(self, vocab_size: int) -> int:
        """Return how many weights a trial has; `vocab_size` counts for a recipe alone."""
        return sum(weight.numel() for weight in self._model(vocab_size).parameters())

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast one worker trains, by half a second of steps or so.

        Raises:
            ConfigError: A device that is not here.
        """
        trainer = self._trainer_of(self._model(vocab_size))
        return trainer.tokens_per_second(vocab_size, training)

    @cached_property
    def _opened(self) -> StartingPoint | StartRecipe:
        if is_recipe(self._name):
            return StartRecipe.open(self._name)
        return StartingPoint.open(self._name)

    def _model(self, vocab_size: int) -> nn.Module:
        opened = self._opened
        return opened.model_of(vocab_size) if isinstance(opened, StartRecipe) else opened.model

    def _ready(self, corpus: Corpus) -> GroupTraining | PlainTraining:
        opened = self._opened
        if isinstance(opened, StartRecipe):
            raise ConfigError(f"proxy.from: {self._name}: is not trained yet; mixopt run trains it")
        if self._wanted is not None and self.start_hash() != self._wanted:
            raise ConfigError(
                f"proxy.from: {self._name}: has changed since the sweep began: its weights hash to"
                f" {self.start_hash()[:12]}, and were {self._wanted[:12]}; restore the checkpoint,"
                " or redo the sweep with: mixopt run --from sweep"
            )
        opened.check_corpus(corpus)
        return self._trainer

    @cached_property
    def _trainer(self) -> GroupTraining | PlainTraining:
        return self._trainer_of(self._model(0))

    def _trainer_of(self, model: nn.Module) -> GroupTraining | PlainTraining:
        moments = {} if self._optimizer is False else self._opened.moments
        if self._optimizer and not moments and not isinstance(self._opened, StartRecipe):
            raise ConfigError(
                f"proxy.options.optimizer: {self._name} has no moments of Adam; leave it out"
            )
        if not isinstance(model, CausalLM):
            balanced = partial(balance_alone, run=self._opened.run)
            return PlainTraining(model, moments, self._annealing, balanced)
        return stacked_from(model, moments, self._annealing, self._compile)

    @cached_property
    def _annealing(self) -> Annealing:
        values = {"min_lr": 0.0, "decay": "linear", "warmup": 0.0} | self._of_run() | self._given
        for option in ("lr", "sequence_length", "batch"):
            if option not in values:
                raise ConfigError(f"proxy.options.{option}: is missing: {self._why_missing}")
        return Annealing(**values, precision=self._precision)  # type: ignore[arg-type]

    @property
    def _why_missing(self) -> str:
        """Why the run of the checkpoint does not say an option that must be known."""
        if self._opened.run is None:
            return f"{self._name} does not say how it was trained"
        return (
            f"the rate of {self._name} at step {self._opened.step:,} is 0; give the rate that the"
            " decay begins with, or start from a checkpoint before its decay"
        )

    def _of_run(self) -> dict[str, object]:
        """Return how the run of the checkpoint was trained, as far as it is known."""
        run, step = self._opened.run, self._opened.step
        if run is None or step is None:
            return {"weight_decay": 0.1, "betas": (0.9, 0.95), "clip": 1.0}
        training = run.training
        rate = training.rates.rate(step)
        return {
            **({"lr": rate} if rate > 0 else {}),
            "sequence_length": training.sequence_length,
            "batch": training.batch,
            "weight_decay": training.weight_decay,
            "betas": training.betas,
            "clip": training.clip,
            "mask_documents": training.mask_documents is True,
            "eps": ADAM_EPS if training.eps is None else training.eps,
            "decay_embeddings": training.decay_embeddings is not False,
        }
