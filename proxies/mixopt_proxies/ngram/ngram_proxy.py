"""An n-gram proxy that trains in seconds, for tests and first looks.

It responds to mixtures qualitatively like larger models (a domain's loss falls with its own share
and with the shares of related domains, with diminishing returns), but not quantitatively. Each
trial draws its tokens from its own mixture with its own seed: every domain's share of the tokens,
in contiguous windows in random order, repeated in another order when the domain is exhausted.

With c(h, w) the count of token w after context h, c(h) its sum over w, T(h) the number of different
w after h, and h' the context without its first token, Witten-Bell smoothing is

    p(w | h) = (c(h, w) + T(h) p(w | h')) / (c(h) + T(h)):

the more different tokens have followed a context, the less weight its counts have. The distribution
below single tokens is uniform, so that probabilities add up to 1 over the vocabulary and none is 0;
for unseen h, p(w | h) = p(w | h'). It has no parameters to tune, and on bytes of text its losses
were lower than those of interpolated absolute discounting with one discount per order.

A gram of order k is the pair (gram of order k - 1 that ends one token earlier, token), numbered
densely in sorted order. The pair fits 64 bits at any order and vocabulary, so there is no hashing
and no collision; counting takes one sort per order, a look-up one binary search.

Shapes: T tokens, G distinct grams of an order, C distinct contexts, R rows of a task, S sampled
tokens, E numbers of training tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from mixopt.corpus import Corpus, Domain, EncodedTask, in_bits_per_byte
from mixopt.errors import ConfigError, CorpusError
from mixopt.loading import Pool, make_pools
from mixopt.mixture import Mixture, whole_counts
from mixopt.sweeps import Doing, Progress, Training
from mixopt.system import Array, BoolArray, IntArray, checked_as
from mixopt.trials import Losses, Trial, TrialResult

NONE = -1  # no gram: not seen in training, or too close to the start of the row
MAX_MEASURED = 100_000  # random tokens to measure the speed
MAX_SAMPLED = 512  # held-out tokens of each evaluation domain for the learning curve
HELD_OUT_WINDOW = 1024  # tokens
SAMPLE_WINDOW = 64  # tokens

Order = Annotated[int, Field(strict=True, ge=1, le=16)]
Window = Annotated[int, Field(strict=True, ge=2, le=2**20)]


class Rows(NamedTuple):
    """Rows of tokens, concatenated."""

    tokens_T: IntArray
    starts_T: BoolArray  # whether a row begins at the token


class NgramProxy:
    """An interpolated n-gram model over token ids."""

    simulates_epochs = True

    def __init__(self, order: int = 4, window: int = 512) -> None:
        """Check and store the options."""
        self.order: int = checked_as(Order, order, "proxy.options.order", ConfigError)
        self.window: int = checked_as(Window, window, "proxy.options.window", ConfigError)

    def group_size(self, corpus: Corpus, training: Training) -> int:
        """Check the pools, and return 1: counting several trials together is not faster."""
        pools_of(corpus, self.window, training)
        return 1

    def tokens_per_second(self, vocab_size: int, training: Training) -> float:
        """Measure the tokens per second of one worker, on random tokens (nearly all distinct)."""
        tokens_T = np.random.default_rng(0).integers(
            0, vocab_size, min(MAX_MEASURED, training.tokens)
        )
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
        results = list[TrialResult]()

        def begin(doing: Doing) -> None:
            report(Progress(len(results) * training.tokens, total, doing))

        for trial in trials:
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
        started = time.perf_counter()
        tokens = training.tokens
        rng = np.random.default_rng(trial.seed)
        tokens_T, starts_T = draw_tokens(
            corpus, trial.mixture, training, window=self.window, rng=rng
        )
        curve: list[Losses] = []

        def add_losses(at: int, nats: dict[str, float], tasks: dict[str, float]) -> None:
            curve.append(Losses(at, nats, in_bits_per_byte(nats, corpus.evaluation), tasks))

        interval = training.eval_every or tokens
        for end in (*range(interval, tokens, interval), tokens):
            begin("training")
            model = NgramModel.counted(
                tokens_T[:end], starts_T[:end], order=self.order, vocab_size=corpus.vocab_size
            )
            begin("evaluating")
            nats = {}
            for name, rows in held_out.items():
                nats[name] = -float(model.log_probabilities(*rows).mean())
            add_losses(end, nats, {task.column: _score(task, model) for task in corpus.tasks})
        last = curve.pop()
        for at, shifts in _curve_points(model, held_out, tokens, training.curve_points):
            add_losses(at, {name: nats[name] + shift for name, shift in shifts.items()}, {})
        return TrialResult(
            trial=trial.name,
            status="finished",
            tokens=tokens,
            parameters=model.parameters,
            seconds=time.perf_counter() - started,
            losses=last,
            curve=(*curve, last),
        )


def _score(task: EncodedTask, model: NgramModel) -> float:
    """Return the bits per byte of a task."""
    begins_T = np.isin(np.arange(len(task.tokens_T)), task.start_R)
    row_T = begins_T.cumsum() - 1
    log_T = model.log_probabilities(task.tokens_T.astype(np.int64), begins_T)
    is_scored_T = _positions(begins_T) >= task.scored_R[row_T]
    sums_R = np.bincount(row_T, weights=log_T * is_scored_T)
    return task.bits_per_byte(sums_R.astype(np.float64))


def _curve_points(
    model: NgramModel, held_out: dict[str, Rows], tokens: int, points: int
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield tokens before the end, and how far losses on a sample are above those at the end."""
    ends = sorted({tokens * k // (points + 1) for k in range(1, points + 2)} - {0})
    if len(ends) < 2:
        return
    samples = [sampled(rows, MAX_SAMPLED) for rows in held_out.values()]
    tokens_S = np.concatenate([sample.tokens_T for sample in samples])
    starts_S = np.concatenate([sample.starts_T for sample in samples])
    log_ES = model.curve(ends, tokens_S, starts_S)
    borders = np.cumsum([len(sample.tokens_T) for sample in samples])[:-1]
    losses_ME = [-part.mean(axis=1) for part in np.split(log_ES, borders, axis=1)]
    for e, end in enumerate(ends[:-1]):
        shifts = [float(loss_E[e] - loss_E[-1]) for loss_E in losses_ME]
        yield end, dict(zip(held_out, shifts, strict=True))


def held_out_rows(domain: Domain, max_tokens: int) -> Rows:
    """Return all held-out tokens, or evenly spaced windows with at most `max_tokens` in total."""
    shards = domain.validation
    if not shards.tokens:
        raise CorpusError(f"domain {domain.name!r} has no held-out text to evaluate")
    length = shards.tokens
    if shards.tokens > max_tokens:
        length = min(HELD_OUT_WINDOW, max_tokens)
    rows_BW = shards.rows(_spread(shards.tokens, length, max_tokens), length)
    starts_T = np.arange(rows_BW.size) % length == 0
    return Rows(rows_BW.astype(np.int64).ravel(), starts_T)


def sampled(rows: Rows, max_tokens: int) -> Rows:
    """Return evenly spaced pieces of rows, with at most `max_tokens` tokens in total."""
    tokens_T, starts_T = rows
    length = min(SAMPLE_WINDOW, max_tokens, len(tokens_T))
    firsts_B = _spread(len(tokens_T), length, max_tokens)
    at_T = (firsts_B[:, None] + np.arange(length)).ravel()
    begins_T = starts_T[at_T]
    begins_T[::length] = True
    return Rows(tokens_T[at_T], begins_T)


def _spread(tokens: int, length: int, max_tokens: int) -> IntArray:
    """Return the starts of evenly spaced windows, with at most `max_tokens` tokens in total."""
    count = max(min(tokens, max_tokens) // length, 1)
    return np.linspace(0, tokens - length, count).astype(np.int64)


def draw_tokens(
    corpus: Corpus, mixture: Mixture, training: Training, *, window: int, rng: np.random.Generator
) -> Rows:
    """Draw the training tokens of one trial: windows in a random order."""
    weights_D = mixture.over(corpus.domain_names).array
    pools = pools_of(corpus, window, training)
    counts_D = whole_counts(weights_D, training.tokens).tolist()
    windows: list[IntArray] = []
    for domain, count in zip(corpus.domains, counts_D, strict=True):
        if count:
            windows += _windows(domain, pools.get(domain.name), count, window, rng)
    drawn = [windows[b] for b in rng.permutation(len(windows))]
    lengths = [len(tokens_T) for tokens_T in drawn]
    starts_T = np.zeros(training.tokens, dtype=np.bool_)
    starts_T[np.cumsum([0, *lengths[:-1]])] = True
    return Rows(np.concatenate(drawn), starts_T)


def pools_of(corpus: Corpus, window: int, training: Training) -> dict[str, Pool]:
    """Return the pool of each domain with tokens."""
    counts = {}
    for domain in corpus.domains:
        if domain.train and domain.train.tokens:
            counts[domain.name] = domain.train.tokens // window
    return make_pools(
        corpus,
        counts,
        tokens=training.tokens,
        target_tokens=training.target_tokens,
        length=window,
        option="proxy.options.window",
        inventory=training.inventory,
    )


def _windows(
    domain: Domain, pool: Pool | None, count: int, window: int, rng: np.random.Generator
) -> list[IntArray]:
    """Return windows with `count` tokens in total, epoch by epoch; the last may be shorter."""
    shards = domain.train
    if shards is None or not shards.tokens:
        raise CorpusError(f"domain {domain.name!r} has a weight but no tokens to train on")
    length = window if pool is not None else min(window, shards.tokens)
    needed = math.ceil(count / length)
    if pool is not None:
        starts = pool.draw(needed, rng) * length
    else:
        rows = shards.tokens // length
        epochs = []
        for _ in range(math.ceil(needed / rows)):
            offset = rng.integers(shards.tokens - rows * length + 1)
            epochs.append(offset + length * rng.permutation(rows))
        starts = np.concatenate(epochs)[:needed]
    tokens_T = shards.rows(starts, length).astype(np.int64).ravel()[:count]
    return np.split(tokens_T, range(length, count, length))


class GramCounts(NamedTuple):
    """The sorted grams of one order: context x V + token, their counts, c(h) and T(h)."""

    keys_G: IntArray
    counts_G: IntArray
    totals_C: Array
    kinds_C: IntArray

    @classmethod
    def of(cls, keys_G: IntArray, counts_G: IntArray, contexts: int, vocab_size: int) -> GramCounts:
        """Compute the sums of each context."""
        contexts_G = keys_G // vocab_size
        sums_C = np.bincount(contexts_G, weights=counts_G, minlength=contexts)
        kinds_C = np.bincount(contexts_G[counts_G > 0], minlength=contexts)
        return cls(keys_G, counts_G, sums_C.astype(np.float64), kinds_C)


@dataclass(frozen=True)
class NgramModel:
    """Counts of all orders up to `order`, the gram of each counted token, and probabilities."""

    orders: tuple[GramCounts, ...]
    grams: tuple[IntArray, ...]  # of each order
    vocab_size: int

    @classmethod
    def counted(
        cls, tokens_T: IntArray, starts_T: BoolArray, *, order: int, vocab_size: int
    ) -> NgramModel:
        """Count the grams of rows."""
        place_T = _positions(starts_T)
        orders: list[GramCounts] = []
        grams: list[IntArray] = []
        contexts_T = np.zeros(len(tokens_T), dtype=np.int64)
        contexts = 1
        for _ in range(order):
            is_gram_T = contexts_T >= 0
            if not is_gram_T.any():  # no row is as long as this order
                break
            keys = contexts_T[is_gram_T] * vocab_size + tokens_T[is_gram_T]
            keys_G, inverse, counts_G = np.unique(keys, return_inverse=True, return_counts=True)
            orders.append(GramCounts.of(keys_G, counts_G, contexts, vocab_size))
            grams_T = np.full(len(tokens_T), NONE, dtype=np.int64)
            grams_T[is_gram_T] = inverse
            grams.append(grams_T)
            contexts_T = _previous(grams_T, place_T)
            contexts = len(keys_G)
        return cls(tuple(orders), tuple(grams), vocab_size)

    @property
    def parameters(self) -> int:
        """Number of counts in the model."""
        return sum(len(order.keys_G) for order in self.orders)

    def log_probabilities(self, tokens_T: IntArray, starts_T: BoolArray) -> Array:
        """Return the natural logarithm of each token's probability, shape (T,)."""
        probability_T = np.full(len(tokens_T), 1.0 / self.vocab_size)
        matches = self._look_up(tokens_T, starts_T)
        for order, (contexts_T, grams_T) in zip(self.orders, matches, strict=True):
            probability_T = _interpolate(order, contexts_T, grams_T, probability_T)
        log_T: Array = np.log(probability_T)
        return log_T

    def curve(self, ends: Sequence[int], tokens_S: IntArray, starts_S: BoolArray) -> Array:
        """Return log probabilities after each number of training tokens in `ends`, shape (E, S)."""
        probability_ES = np.full((len(ends), len(tokens_S)), 1.0 / self.vocab_size, order="F")
        matches = self._look_up(tokens_S, starts_S)
        for order, grams_T, match in zip(self.orders, self.grams, matches, strict=True):
            contexts_S, grams_S = match
            contexts = len(order.totals_C)
            counts_G = np.zeros_like(order.counts_G)
            # Without the part after the last end, which may be empty.
            for row_S, part in zip(probability_ES, np.split(grams_T, ends), strict=False):
                counts_G += np.bincount(part[part >= 0], minlength=len(counts_G))
                so_far = GramCounts.of(order.keys_G, counts_G, contexts, self.vocab_size)
                row_S[:] = _interpolate(so_far, contexts_S, grams_S, row_S)
        log_ES: Array = np.log(probability_ES)
        return log_ES

    def _look_up(
        self, tokens_T: IntArray, starts_T: BoolArray
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield the numbers of the tokens' contexts and grams, by order."""
        place_T = _positions(starts_T)
        contexts_T = np.zeros(len(tokens_T), dtype=np.int64)
        for order in self.orders:
            keys_T = np.where(contexts_T >= 0, contexts_T * self.vocab_size + tokens_T, NONE)
            places_T = np.searchsorted(order.keys_G, keys_T)
            is_counted_T = order.keys_G[np.minimum(places_T, len(order.keys_G) - 1)] == keys_T
            grams_T = np.where(is_counted_T, places_T, NONE)
            yield contexts_T, grams_T
            contexts_T = _previous(grams_T, place_T)


def _interpolate(
    order: GramCounts, contexts_T: IntArray, grams_T: IntArray, lower_T: Array
) -> Array:
    """Interpolate one order's frequencies with the probabilities of the order below."""
    has_context_T = contexts_T >= 0
    totals_T = np.where(has_context_T, order.totals_C[contexts_T], 0)
    kinds_T = np.where(has_context_T, order.kinds_C[contexts_T], 0)
    counts_T = np.where(grams_T >= 0, order.counts_G[grams_T], 0)
    mixed_T = (counts_T + kinds_T * lower_T) / np.maximum(totals_T + kinds_T, 1)
    return np.where(totals_T > 0, mixed_T, lower_T)


def _positions(starts_T: BoolArray) -> IntArray:
    """Return each token's position in its row."""
    index_T = np.arange(len(starts_T), dtype=np.int64)
    return index_T - np.maximum.accumulate(np.where(starts_T, index_T, 0))


def _previous(grams_T: IntArray, place_T: IntArray) -> IntArray:
    """Return the gram that ends one token earlier in the same row, else NONE."""
    previous_T = np.concatenate([[NONE], grams_T[:-1]])
    return np.where(place_T > 0, previous_T, NONE)
