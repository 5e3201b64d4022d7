"""A proxy that counts: an n-gram model that trains in seconds, for tests and first looks.

It answers to a mixture as larger models do in kind (a domain's loss falls with its own share, with
the share of its relatives, and with less from each doubling), not in size. Each trial draws its
tokens from its own mixture with its own seed: of every domain its share of the tokens, in
contiguous windows at shuffled places, over again in another order where the domain is exhausted.

Shapes: T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mixopt.corpus import Corpus, Domain, EncodedTask
from mixopt.errors import ConfigError
from mixopt.trials import Doing, Losses, Progress, Training, Trial, TrialResult, in_bits_per_byte
from mixopt_proxies.ngram.model import (
    Grams,
    HeldOutCounts,
    NgramModel,
    draw_tokens,
    log_probabilities_on_the_way,
    pools_of,
)

PROBED = 100_000  # random tokens that tell how fast it counts
SAMPLED = 512  # held-out tokens of each evaluation domain that the learning curve is measured on


class NgramProxy:
    """An interpolated n-gram model over token ids (mixopt_proxies.ngram.model)."""

    simulates_epochs = True

    def __init__(self, order: int = 4, window: int = 512) -> None:
        """Choose the model."""
        for name, value, least, most in (("order", order, 1, 16), ("window", window, 2, 2**20)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(
                    f"proxy.options.{name}: {value!r}; need a whole number from {least} to {most}"
                )
        self.order = order
        self.window = window

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Return 1: counting one mixture gains nothing from another beside it."""
        pools_of(corpus, self.window, training)
        return 1

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Return how fast one worker counts, by random tokens, of which hardly two are alike."""
        tokens_T = np.random.default_rng(0).integers(0, vocab_size, min(PROBED, training.tokens))
        starts_T = np.arange(len(tokens_T)) % self.window == 0
        started = time.perf_counter()
        NgramModel.counted(tokens_T, starts_T, order=self.order, vocab_size=vocab_size)
        return len(tokens_T) / max(time.perf_counter() - started, 1e-9)

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Count the n-grams of each trial's tokens and return its held-out losses."""
        held_out = {d.name: HeldOutCounts.of(d, training.eval_tokens) for d in corpus.evaluation}
        scored_on = _HeldOutAndTasks(
            corpus.evaluation, held_out, [TaskRows(task) for task in corpus.tasks]
        )
        total = len(trials) * training.tokens
        results = []
        for done, trial in enumerate(trials):
            begin = partial(_report, report, done * training.tokens, total)
            results.append(self._train(trial, corpus, training, scored_on, begin))
        report(Progress(total, total))
        return results

    def _train(
        self,
        trial: Trial,
        corpus: Corpus,
        training: Training,
        scored_on: _HeldOutAndTasks,
        begin: Callable[[Doing], None],
    ) -> TrialResult:
        started = time.perf_counter()
        rng = np.random.default_rng(trial.seed)
        tokens_T, starts_T = draw_tokens(
            corpus, trial.mixture, training, window=self.window, rng=rng
        )
        curve = []
        for end in _ends(training):
            begin("training")
            model, grams = NgramModel.counted(
                tokens_T[:end], starts_T[:end], order=self.order, vocab_size=corpus.vocab_size
            )
            begin("evaluating")
            curve.append(scored_on.of(model, end))
        curve = [*scored_on.on_the_way(model, grams, curve[-1], training.curve_points), *curve]
        return TrialResult(
            trial=trial.name,
            status="finished",
            tokens=training.tokens,
            parameters=model.parameters,
            seconds=time.perf_counter() - started,
            losses=curve[-1],
            curve=tuple(curve),
        )


def _report(report: Callable[[Progress], None], done: int, total: int, doing: Doing) -> None:
    report(Progress(done, total, doing))


def _ends(training: Training) -> list[int]:
    """Return the numbers of tokens after which the model is scored; the last is all of them."""
    every = training.eval_every or training.tokens
    return [*range(every, training.tokens, every), training.tokens]


@dataclass(frozen=True)
class _HeldOutAndTasks:
    """What a trained model is scored on."""

    domains: tuple[Domain, ...]
    held_out: dict[str, HeldOutCounts]
    tasks: list[TaskRows]

    def of(self, model: NgramModel, tokens: int) -> Losses:
        """Return the losses of a model after so many training tokens."""
        nats = {
            name: -float(model.log_probabilities(held.tokens_T, held.starts_T).mean())
            for name, held in self.held_out.items()
        }
        bits = in_bits_per_byte(nats, self.domains)
        tasks = {name: value for rows in self.tasks for name, value in rows.scores(model).items()}
        return Losses(tokens, nats, bits, tasks)

    def on_the_way(
        self, model: NgramModel, grams: Sequence[Grams], end: Losses, points: int
    ) -> list[Losses]:
        """Return losses before the end, on a sample of the held-out tokens."""
        ends = [end.tokens * place // (points + 1) for place in range(1, points + 2)]
        ends = sorted({count for count in ends if count})
        if len(ends) < 2:
            return []
        samples = [held.sample(SAMPLED) for held in self.held_out.values()]
        tokens_S = np.concatenate([one.tokens_T for one in samples])
        starts_S = np.concatenate([one.starts_T for one in samples])
        log_ES = log_probabilities_on_the_way(model, grams, ends, tokens_S, starts_S)
        borders = np.cumsum([len(one.tokens_T) for one in samples])[:-1]
        loss_ME = [-part.mean(axis=1) for part in np.split(log_ES, borders, axis=1)]
        curve = []
        for place, tokens in enumerate(ends[:-1]):
            nats = {
                name: end.nats_per_token[name] + float(loss_E[place] - loss_E[-1])
                for name, loss_E in zip(self.held_out, loss_ME, strict=True)
            }
            curve.append(Losses(tokens, nats, in_bits_per_byte(nats, self.domains)))
        return curve


class TaskRows:
    """A task that models are scored on."""

    def __init__(self, task: EncodedTask) -> None:
        """Find the tokens that are scored."""
        self._task = task
        self._tokens_T = task.tokens_T.astype(np.int64)
        self._starts_T = np.zeros(len(self._tokens_T), dtype=bool)
        self._starts_T[task.start_R[:-1]] = True
        sizes_R = np.diff(task.start_R)
        place_T = np.arange(len(self._tokens_T)) - np.repeat(task.start_R[:-1], sizes_R)
        self._scored_T = place_T >= np.repeat(task.scored_R, sizes_R)
        self._row_T = np.repeat(np.arange(task.rows), sizes_R)

    def scores(self, model: NgramModel) -> dict[str, float]:
        """Return what is measured of the task, by the name of its column."""
        log_T = model.log_probabilities(self._tokens_T, self._starts_T)
        scored_T = np.where(self._scored_T, log_T, 0.0)
        sums_R = np.bincount(self._row_T, weights=scored_T, minlength=self._task.rows)
        return {self._task.column: self._task.bits_per_byte(sums_R.astype(np.float64))}
