"""A proxy that counts: an n-gram model that trains in seconds, for tests and first looks.

It answers to a mixture as larger models do in kind (a domain's loss falls with its own share, with
the share of its relatives, and with less from each doubling), not in size. Each trial draws its
tokens from its own mixture with its own seed: of every domain its share of the tokens, in
contiguous windows at shuffled places, over again in another order where the domain is exhausted.

Shapes: T tokens, R rows of a task, S sampled tokens, E places of the learning curve.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from mixopt.corpus import Corpus, Domain, EncodedTask
from mixopt.errors import ConfigError, CorpusError
from mixopt.loading import Pool, make_pools
from mixopt.mixture import Mixture
from mixopt.system import Array, BoolArray, IntArray
from mixopt.trials import Doing, Losses, Progress, Training, Trial, TrialResult, in_bits_per_byte
from mixopt_proxies.ngram.model import NgramModel

PROBED = 100_000  # random tokens that tell how fast it counts
SAMPLED = 512  # held-out tokens of each evaluation domain that the learning curve is measured on
HELD_OUT_WINDOW = 1024
SAMPLE_WINDOW = 64

Rows = tuple[IntArray, BoolArray]  # tokens one row after the other, and whether one begins there


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
        held_out = {d.name: held_out_rows(d, training.eval_tokens) for d in corpus.evaluation}
        total = len(trials) * training.tokens
        results = []
        for number, trial in enumerate(trials):

            def begin(doing: Doing, done: int = number * training.tokens) -> None:
                report(Progress(done, total, doing))

            results.append(self._train(trial, corpus, training, held_out, begin))
        report(Progress(total, total))
        return results

    def _train(
        self,
        trial: Trial,
        corpus: Corpus,
        training: Training,
        held_out: dict[str, Rows],
        begin: Callable[[Doing], None],
    ) -> TrialResult:
        started, curve = time.perf_counter(), list[Losses]()
        rng = np.random.default_rng(trial.seed)
        tokens_T, starts_T = draw_tokens(
            corpus, trial.mixture, training, window=self.window, rng=rng
        )
        every = training.eval_every or training.tokens
        for end in (*range(every, training.tokens, every), training.tokens):
            begin("training")
            model, grams = NgramModel.counted(
                tokens_T[:end], starts_T[:end], order=self.order, vocab_size=corpus.vocab_size
            )
            begin("evaluating")
            nats = {
                n: -float(model.log_probabilities(*rows).mean()) for n, rows in held_out.items()
            }
            tasks = {task.column: _score(task, model) for task in corpus.tasks}
            curve.append(Losses(end, nats, in_bits_per_byte(nats, corpus.evaluation), tasks))
        last = curve[-1]
        for place, nats in _on_the_way(model, grams, held_out, last, training.curve_points):
            bits = in_bits_per_byte(nats, corpus.evaluation)
            curve.insert(-1, Losses(place, nats, bits))
        return TrialResult(
            trial=trial.name,
            status="finished",
            tokens=training.tokens,
            parameters=model.parameters,
            seconds=time.perf_counter() - started,
            losses=last,
            curve=tuple(curve),
        )


def _score(task: EncodedTask, model: NgramModel) -> float:
    """Return the bits per byte of a task."""
    row_T = np.repeat(np.arange(task.rows), np.diff(task.start_R))
    every_T = np.arange(len(row_T))
    begins_T = every_T == task.start_R[row_T]
    log_T = model.log_probabilities(task.tokens_T.astype(np.int64), begins_T)
    log_T[every_T < (task.start_R[:-1] + task.scored_R)[row_T]] = 0.0
    sums_R = np.bincount(row_T, weights=log_T, minlength=task.rows)
    return task.bits_per_byte(sums_R.astype(np.float64))


def _on_the_way(
    model: NgramModel, grams: list[IntArray], held_out: dict[str, Rows], end: Losses, points: int
) -> list[tuple[int, dict[str, float]]]:
    """Return losses before the end: those on a sample, moved by what it differs by at the end."""
    ends = sorted({end.tokens * place // (points + 1) for place in range(1, points + 2)} - {0})
    if len(ends) < 2:
        return []
    samples = [sampled(rows, SAMPLED) for rows in held_out.values()]
    tokens_S, starts_S = (np.concatenate(part) for part in zip(*samples, strict=True))
    log_ES = model.on_the_way(grams, ends, tokens_S, starts_S)
    borders = np.cumsum([len(tokens_T) for tokens_T, _ in samples])[:-1]
    losses_ME = [-part.mean(axis=1) for part in np.split(log_ES, borders, axis=1)]
    curve = []
    for e, tokens in enumerate(ends[:-1]):
        moves = [float(loss_E[e] - loss_E[-1]) for loss_E in losses_ME]
        nats = {n: end.nats_per_token[n] + more for n, more in zip(held_out, moves, strict=True)}
        curve.append((tokens, nats))
    return curve


def held_out_rows(domain: Domain, most: int) -> Rows:
    """Return all held-out tokens, or evenly spaced windows of at most `most` in all."""
    shards = domain.validation
    if not shards.tokens:
        raise CorpusError(f"domain {domain.name!r} has no held-out text to be scored on")
    length = shards.tokens if shards.tokens <= most else min(HELD_OUT_WINDOW, most)
    count = max(min(shards.tokens, most) // length, 1)
    starts_B = np.linspace(0, shards.tokens - length, count).astype(np.int64)
    tokens_T = shards.rows(starts_B, length).astype(np.int64).ravel()
    return tokens_T, np.arange(len(tokens_T)) % length == 0


def sampled(rows: Rows, most: int) -> Rows:
    """Return evenly spaced pieces of rows, of at most so many tokens in all."""
    tokens_T, starts_T = rows
    length = min(SAMPLE_WINDOW, most, len(tokens_T))
    count = max(min(most, len(tokens_T)) // length, 1)
    firsts_B = np.linspace(0, len(tokens_T) - length, count).astype(np.int64)
    at_T = (firsts_B[:, None] + np.arange(length)).ravel()
    begins_T = starts_T[at_T]
    begins_T[::length] = True
    return tokens_T[at_T], begins_T


def draw_tokens(
    corpus: Corpus,
    mixture: Mixture,
    training: Training,
    *,
    window: int,
    rng: np.random.Generator,
) -> Rows:
    """Draw the training tokens of one trial: windows in a random order."""
    weights_D = mixture.over(corpus.domain_names).array
    pools, windows = pools_of(corpus, window, training), list[IntArray]()
    counts_D = split_tokens(weights_D, training.tokens).tolist()
    for domain, count in zip(corpus.domains, counts_D, strict=True):
        if count:
            windows += _windows(domain, pools.get(domain.name), count, window, rng)
    drawn = [windows[b] for b in rng.permutation(len(windows))]
    starts_T = np.zeros(training.tokens, dtype=np.bool_)
    starts_T[np.cumsum([0, *(len(one) for one in drawn[:-1])])] = True
    return np.concatenate(drawn), starts_T


def pools_of(corpus: Corpus, window: int, training: Training) -> dict[str, Pool]:
    """Return the pool of each domain that has tokens."""
    filled = [(d.name, d.train.tokens) for d in corpus.domains if d.train and d.train.tokens]
    return make_pools(
        corpus,
        {name: count // window for name, count in filled},
        tokens=training.tokens,
        target_tokens=training.target_tokens,
        length=window,
        option="proxy.options.window",
        inventory=training.inventory,
    )


def split_tokens(weights_D: Array, tokens: int) -> IntArray:
    """Split a number of tokens by weights: each share within one token, and all add up to it."""
    exact_D = weights_D * tokens
    counts_D = np.floor(exact_D).astype(np.int64)
    owed = tokens - int(counts_D.sum())
    counts_D[np.argsort(counts_D - exact_D, kind="stable")[:owed]] += 1
    return counts_D


def _windows(
    domain: Domain, pool: Pool | None, count: int, window: int, rng: np.random.Generator
) -> list[IntArray]:
    """Return windows of `count` tokens together, epoch after epoch; the last may be shorter."""
    shards = domain.train
    if shards is None or not shards.tokens:
        raise CorpusError(f"domain {domain.name!r} has a weight but no tokens to train on")
    length = window if pool is not None else min(window, shards.tokens)
    needed = math.ceil(count / length)
    if pool is not None:
        starts = pool.draw(needed, rng) * length
    else:
        rows = shards.tokens // length
        epochs = [
            rng.integers(shards.tokens - rows * length + 1) + length * rng.permutation(rows)
            for _ in range(math.ceil(needed / rows))
        ]
        starts = np.concatenate(epochs)[:needed]
    tokens_T = shards.rows(starts, length).astype(np.int64).ravel()[:count]
    return np.split(tokens_T, range(length, count, length))
