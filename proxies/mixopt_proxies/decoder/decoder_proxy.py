"""The stacked decoder as a proxy: options in, results of trials out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from mixopt.corpus import Corpus
from mixopt.trials import Progress, Training, Trial, TrialResult
from mixopt_proxies.decoder.devices import Compile, Precision
from mixopt_proxies.decoder.group_training import GroupTraining, one_of
from mixopt_proxies.decoder.sizes import SizeOverrides, make_size


class DecoderProxy:
    """A Llama-style decoder; several trials train together where that is faster."""

    simulates_epochs = True

    def __init__(
        self,
        *,
        size: str = "tiny",
        precision: Precision = "auto",
        compile: Compile = "auto",
        mask_documents: bool = False,
        **overrides: Unpack[SizeOverrides],
    ) -> None:
        """Choose a size and override any of its fields."""
        self.size = make_size(size, **overrides)
        one_of("mask_documents", mask_documents, (True, False))
        self.together = GroupTraining(
            self.size, precision=precision, compile=compile, mask_documents=mask_documents
        )

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return how many trials to train together (`GroupTraining.group_size`)."""
        return self.together.group_size(corpus, training)

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials together and return a result for each, in their order."""
        return self.together.train(trials, corpus, training, report)

    def parameters(self, vocab_size: int) -> int:
        """Return how many weights a trial has."""
        return self.together.parameters(vocab_size)

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast one worker trains, by half a second of steps that are not compiled."""
        return self.together.tokens_per_second(vocab_size, training)
