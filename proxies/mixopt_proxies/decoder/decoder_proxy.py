"""The decoder as a proxy; options and size do not import torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from mixopt.corpus import Corpus
from mixopt.sweeps import Progress, Training
from mixopt.trials import Trial, TrialResult
from mixopt_proxies.decoder.sizes import OPTIONS, make_size

if TYPE_CHECKING:
    from mixopt_proxies.decoder.group_training import GroupTraining


class DecoderProxy:
    """A Llama-style decoder as a proxy; several trials train together if that is faster.

    Attributes:
        size: Model size and training options of each trial.
    """

    simulates_epochs = resumes = True
    option_names = OPTIONS

    def __init__(self, *, size: str = "tiny", **overrides: object) -> None:
        """Choose a size and override any of its fields (`DecoderSize`)."""
        self.size = make_size(size, **overrides)

    @cached_property
    def training(self) -> GroupTraining:
        """The training of groups."""
        from mixopt_proxies.decoder.group_training import GroupTraining

        return GroupTraining(self.size)

    def parameters(self, vocab_size: int) -> int:
        """Return the number of weights of a trial."""
        return self.size.parameters(vocab_size)

    def flops_per_token(self, vocab_size: int) -> float:
        """Return the training operations per token."""
        return self.size.step_flops(vocab_size) / self.size.step_tokens

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Measure the tokens per second of one worker."""
        return self.training.tokens_per_second(vocab_size, training)

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return the number of trials that train together."""
        return self.training.group_size(corpus, training)

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Train the trials together and return a result for each, in their order."""
        return self.training.train(trials, corpus, training, report)
