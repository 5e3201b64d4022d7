"""What the trials begin with: a checkpoint, opened once, and how its run was trained.

Opening reads and hashes its files; the weights and the moments of Adam are read when they are used.
A recipe is the YAML of a pretraining that makes the checkpoint; what it will cost to train from it
is known before it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from mixopt.corpus import (
    Corpus,
    VocabularyIdentity,
    identity_of,
    known_tokenizer,
    saved_tokenizer,
)
from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.pretraining import (
    ModelOrigin,
    PretrainConfig,
    build_model,
    load_pretraining,
    open_origin,
    pretrain,
    recipe_fingerprint,
    recorded_pretraining,
)
from mixopt.system import Say
from mixopt_proxies.continued.annealing import ADAM_STATE

_STATE = "state."  # before the names of the optimiser's tensors in a checkpoint


@dataclass(frozen=True)
class StartingPoint:
    """A checkpoint that trials begin with.

    Attributes:
        name: What the user named.
        origin: What it is.
    """

    name: str
    origin: ModelOrigin

    @classmethod
    def open(cls, name: str) -> StartingPoint:
        """Open what a user named.

        Raises:
            MixoptError: There is nothing of the kind, or it is damaged.
        """
        try:
            return cls(name, open_origin(name))
        except MixoptError as error:
            raise type(error)(str(error).replace("model.from:", "proxy.from:")) from error

    @cached_property
    def model(self) -> nn.Module:
        """The model with its weights, on the CPU."""
        return self.origin.module()

    @cached_property
    def moments(self) -> dict[str, Tensor]:
        """Adam's, by the names of the weights and of Adam's state, such as `norm.exp_avg`."""
        found = self.origin.optimizer_tensors() or {}
        return {
            name.removeprefix(_STATE): value
            for name, value in found.items()
            if name.rpartition(".")[2] in ADAM_STATE  # an average of the weights is none of Adam's
        }

    @cached_property
    def run(self) -> PretrainConfig | None:
        """How its run was configured; None of a model from elsewhere."""
        if not self.origin.is_ours:
            return None
        return recorded_pretraining(self.origin.path.resolve().parent.parent)

    @property
    def step(self) -> int | None:
        """Steps that were taken in its run; None of a model from elsewhere."""
        return self.origin.step

    def check_corpus(self, corpus: Corpus) -> None:
        """Check that the tokens of a corpus are the model's.

        Raises:
            ConfigError: They are not.
        """
        if self.origin.vocabulary is None:
            self._check_size(corpus.tokenizer, corpus.vocab_size)
            return
        tokenizer = saved_tokenizer(corpus.path, corpus.tokenizer)
        self._check_ids(identity_of(corpus.tokenizer, tokenizer))

    def check_tokenizer(self, name: str) -> None:
        """Check the same of a corpus that is not prepared yet, by the name of its tokenizer.

        Raises:
            ConfigError: Its tokens will be others; nothing where only its text can tell.
        """
        tokenizer = known_tokenizer(name)
        if tokenizer is not None and self.origin.vocabulary is None:
            self._check_size(name, tokenizer.vocab_size)
        elif tokenizer is not None:
            self._check_ids(identity_of(name, tokenizer))

    def _check_ids(self, here: VocabularyIdentity) -> None:
        known = self.origin.vocabulary
        if known is not None and here.sha256 != known.sha256:
            raise ConfigError(
                f"proxy.from: {self.name}: was trained with the tokenizer {known}, and the corpus"
                f" has {here}: give corpus.tokenizer the model's"
            )

    def _check_size(self, tokenizer: str, ids: int) -> None:
        if ids > self.origin.vocab_size:
            raise ConfigError(
                f"proxy.from: {self.name}: knows {self.origin.vocab_size:,} ids, and the corpus's"
                f" tokenizer {tokenizer} has {ids:,}: give corpus.tokenizer the model's"
            )


@dataclass(frozen=True)
class StartRecipe:
    """A pretraining whose last checkpoint trials will begin with; its weights are random yet.

    Attributes:
        name: The YAML file.
        run: What it says.
    """

    name: str
    run: PretrainConfig

    @classmethod
    def open(cls, name: str) -> StartRecipe:
        """Read the file.

        Raises:
            ConfigError: It cannot be read, or a field cannot be right.
        """
        return cls(name, load_pretraining(name))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that its weights will depend on, text that is prepared already included.

        Raises:
            MixoptError: What it names cannot be read.
        """
        try:
            return recipe_fingerprint(self.run)
        except MixoptError as error:
            raise type(error)(f"proxy.from: {self.name}: {error}") from error

    @property
    def step(self) -> int:
        """Steps that its run takes."""
        return self.run.training.steps

    @property
    def moments(self) -> dict[str, Tensor]:
        """None yet."""
        return {}

    def model_of(self, vocab_size: int) -> nn.Module:
        """Return the model with random weights."""
        length = self.run.training.sequence_length
        return build_model(self.run.model, vocab_size=vocab_size, sequence_length=length, seed=0)

    def train(self, folder: Path, say: Say) -> None:
        """Train it, or resume it, into a folder of a run.

        Raises:
            RunError: It was asked to stop before its end; it resumes from its last checkpoint.
            MixoptError: It cannot be trained.
        """
        found = pretrain(self.name, folder, say=lambda line: say(f"prefix: {line}"))
        if found.step < found.steps:
            raise RunError(
                f"{folder}: stopped after {found.step:,} of {found.steps:,} steps; run again to"
                " resume"
            )
