"""What the trials begin with: a checkpoint, opened once, and how its run was trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from mixopt.corpus import Corpus
from mixopt.errors import ConfigError
from mixopt.pretraining import PretrainConfig, TrainedModel, load_pretraining


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """A checkpoint.

    Attributes:
        name: What the user named.
        model: With its weights, on the CPU.
        vocab_size: Ids that it knows.
        moments: Adam's, by the names of the model's weights and of Adam's state; empty where the
            checkpoint has none.
        run: How its run was configured; None of a model from elsewhere.
        step: Steps that it has taken; 0 of a model from elsewhere.
    """

    name: str
    model: nn.Module
    vocab_size: int
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    run: PretrainConfig | None = None
    step: int = 0

    @classmethod
    def open(cls, name: str) -> StartingPoint:
        """Open what a user named.

        Raises:
            MixoptError: It cannot be opened.
        """
        opened = TrainedModel.open(name, device="cpu", trust=True)
        model = opened.model.requires_grad_(True)
        run = load_pretraining(Path(name) / "config.yaml")
        return cls(name, model, opened.tokenizer.vocab_size, {}, run, opened.step)

    def check_corpus(self, corpus: Corpus) -> None:
        """Check that the tokens of a corpus are the model's.

        Raises:
            ConfigError: They are not.
        """
        if corpus.vocab_size != self.vocab_size:
            raise ConfigError(
                f"proxy.from: {self.name}: has {self.vocab_size:,} ids, and corpus.tokenizer:"
                f" {corpus.tokenizer} has {corpus.vocab_size:,}; give the tokenizer of the model"
            )


def start_hash(name: str) -> str:
    """Return the hash of the weights that a user named.

    Raises:
        MixoptError: It cannot be opened.
    """
    last = sorted((Path(name) / "checkpoints").glob("step-*"))[-1]
    return hashlib.sha256((last / "state.json").read_bytes()).hexdigest()
