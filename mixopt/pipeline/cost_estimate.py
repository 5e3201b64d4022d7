"""How much an experiment trains: trials, tokens, operations, time, and what it writes.

Operations are 6 N T for N parameters and T tokens (Kaplan et al., 2020), attention left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixopt.config import Config

_RESULT, _PAGE = 4_000, 2_000_000  # bytes of a trial's file; of the report and its figures
VALIDATION = "validation"


@dataclass(frozen=True)
class TrainingPart:
    """Trials of one part of a run.

    Attributes:
        name: The first round, later rounds, or the validation.
        least: How many trials at least.
        most: How many where every further round and seed is used.
        tokens: Training tokens of each.
    """

    name: str
    least: int
    most: int
    tokens: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"part": self.name, "least": self.least, "most": self.most, "tokens": self.tokens}


@dataclass(frozen=True)
class Costs:
    """What an experiment trains and writes.

    Attributes:
        parts: Trials by part.
        parameters: Weights of a trial, where they are known.
        tokens_per_second: Of one worker, where it was measured.
        workers: How many train at once.
        written: Bytes that are written, about, by folder or file.
    """

    parts: tuple[TrainingPart, ...]
    parameters: int | None
    tokens_per_second: float | None
    workers: int
    written: dict[str, int]

    @property
    def tokens(self) -> tuple[int, int]:
        """Training tokens of all trials, at least and at most."""
        least = sum(part.least * part.tokens for part in self.parts)
        return least, sum(part.most * part.tokens for part in self.parts)

    @property
    def flops(self) -> tuple[float, float] | None:
        """Operations of all trials, at least and at most; None without parameters."""
        if self.parameters is None:
            return None
        least, most = self.tokens
        return 6.0 * self.parameters * least, 6.0 * self.parameters * most

    @property
    def seconds(self) -> tuple[float, float] | None:
        """How long training takes here, at least and at most; None where it was not measured."""
        if not self.tokens_per_second:
            return None
        rate = self.tokens_per_second * self.workers
        least, most = self.tokens
        return least / rate, most / rate

    def gpu_hours(self, peak_tflops: float, utilisation: float) -> tuple[float, float] | None:
        """Return the hours of a GPU with this peak, of which this share is used."""
        if self.flops is None:
            return None
        rate = peak_tflops * 1e12 * utilisation * 3600
        return self.flops[0] / rate, self.flops[1] / rate


def training_parts(config: Config) -> tuple[TrainingPart, ...]:
    """Return how many trials an experiment trains, by part."""
    design, proxy, validation = config.design, config.proxy, config.validation
    first = design.first_trials
    later = design.trials - design.first_round
    baselines = len(validation.baselines)
    least = (1 + baselines) * validation.seeds
    most = (validation.rounds + baselines) * validation.most_seeds
    parts = [
        TrainingPart("first round", first, first, proxy.tokens),
        TrainingPart("later rounds", 0 if design.stop_gain else later, later, proxy.tokens),
        TrainingPart(VALIDATION, least, most, validation.tokens or 2 * proxy.tokens),
    ]
    return tuple(part for part in parts if part.most)


def written_bytes(
    config: Config, parts: tuple[TrainingPart, ...], sample: dict[str, int] | None, vocab_size: int
) -> dict[str, int]:
    """Return about how many bytes a run writes, by folder or file.

    Args:
        config: The experiment.
        parts: Its trials.
        sample: Tokens that are prepared, by domain, where that is known.
        vocab_size: Ids of the tokenizer.
    """
    width = 2 if vocab_size <= 1 << 16 else 4
    corpus = {} if sample is None else {"corpus": width * sum(sample.values())}
    held = sum(part.most for part in parts if part.name == VALIDATION)
    trials = sum(part.most for part in parts) - held
    return {**corpus, "trials": _RESULT * trials, VALIDATION: _RESULT * held, "report": _PAGE}
