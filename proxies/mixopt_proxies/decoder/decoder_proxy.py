"""The stacked decoder as a proxy: options in, results of trials out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from mixopt.corpus import Corpus
from mixopt.trials import Progress, Training, Trial, TrialResult
from mixopt_proxies.decoder.compiling import Compile
from mixopt_proxies.decoder.device_precision import Precision
from mixopt_proxies.decoder.group_training import GroupTraining, one_of
from mixopt_proxies.decoder.named_sizes import SizeOverrides, make_size


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
        """Choose a size and override any of its fields.

        Args:
            size: `tiny`, RegMix's `1m` or `60m`; `moe-tiny` or `moe-1m` with experts.
            precision: `float32`, `bfloat16`, or `auto`: bf16 where the hardware has it.
            compile: true, false, or `auto`: where there is a compiler and the run pays it back.
            mask_documents: Whether documents of a sequence do not see each other: attention is cut
                and positions restart where one ends.
            **overrides: Fields of the size, such as `width=64`, and of its experts, such as
                `top_k=1` (`DecoderSize` and `Experts` in mixopt_proxies.decoder say what they are).

        Raises:
            ConfigError: A value that is out of range, or of no use beside the others; or an option
                that there is not.
        """
        self.size = make_size(size, **overrides)
        one_of("mask_documents", mask_documents, (True, False))
        self.together = GroupTraining(
            self.size, precision=precision, compile=compile, mask_documents=mask_documents
        )

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return how many trials to train together (`GroupTraining.group_size`).

        Raises:
            CorpusError: A domain, or its pool, with fewer tokens than one sequence.
            ConfigError: Warm-up and decay are longer than a trial.
        """
        return self.together.group_size(corpus, training)

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials together and return a result for each, in their order.

        Raises:
            CorpusError: A domain with fewer tokens than one sequence.
            ConfigError: A device that is not here, or warm-up and decay longer than a trial.
        """
        return self.together.train(trials, corpus, training, report)

    def parameters(self, vocab_size: int) -> int:
        """Return how many weights a trial has."""
        return self.together.parameters(vocab_size)

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast one worker trains, by half a second of steps that are not compiled.

        Raises:
            ConfigError: A device that is not here.
        """
        return self.together.tokens_per_second(vocab_size, training)
