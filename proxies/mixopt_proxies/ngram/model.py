"""An interpolated n-gram model over token ids, by sorting.

With c(h, w) how often token w followed context h, c(h) the sum over w, T(h) how many different w
followed, and h' the context without its first token, Witten-Bell smoothing is

    p(w | h) = (c(h, w) + T(h) p(w | h')) / (c(h) + T(h)):

the more kinds of token have followed a context, the less its counts are trusted. Below the
single tokens is the uniform distribution, so that probabilities add up to 1 over the vocabulary
and none is 0; where h was never seen, p(w | h) = p(w | h'). It has nothing to tune, and on bytes
of text it gave lower losses than interpolated absolute discounting with a discount an order.

A gram of order k is the pair (gram of order k - 1 that ends one token earlier, token), numbered
densely in sorted order. The pair fits 64 bits at any order and vocabulary, so nothing is hashed
and nothing collides; counting is one sort an order, and looking up a binary search.

Shapes: T tokens, G distinct grams of an order, C distinct contexts, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixopt.corpus import Corpus, Domain, TokenShards
from mixopt.errors import CorpusError
from mixopt.loading import Pool, make_pools
from mixopt.mixture import Mixture
from mixopt.system import Array, BoolArray, IntArray
from mixopt.trials import Training

NONE = -1  # no gram: not seen in training, or the row starts too late for it


class Grams(NamedTuple):
    """Each token's context and gram of one order, by number, NONE where there is none."""

    contexts_T: IntArray
    grams_T: IntArray


@dataclass(frozen=True)
class GramCounts:
    """The grams of one order.

    Attributes:
        keys_G: context x V + token, sorted; the position is the gram's number.
        counts_G: How often each was seen.
        totals_C: c(h) by context.
        kinds_C: T(h) by context.
    """

    keys_G: IntArray
    counts_G: IntArray
    totals_C: IntArray
    kinds_C: IntArray


@dataclass(frozen=True)
class NgramModel:
    """Counts of all orders up to `order`, and the probabilities that follow from them."""

    orders: tuple[GramCounts, ...]
    vocab_size: int

    @classmethod
    def counted(
        cls, tokens_T: IntArray, starts_T: BoolArray, *, order: int, vocab_size: int
    ) -> tuple[NgramModel, list[Grams]]:
        """Count the grams of a stream of rows; return also those of each token, by order."""
        place_T = _places(starts_T)
        contexts_T = np.zeros(len(tokens_T), dtype=np.int64)
        orders: list[GramCounts] = []
        grams: list[Grams] = []
        for k in range(1, order + 1):
            known_T = contexts_T >= 0
            if not known_T.any():  # no row is as long as this order
                break
            keys = contexts_T[known_T] * vocab_size + tokens_T[known_T]
            keys_G, inverse, counts_G = np.unique(keys, return_inverse=True, return_counts=True)
            contexts = 1 if k == 1 else len(orders[-1].keys_G)
            orders.append(_count(keys_G, counts_G, contexts, vocab_size))
            grams_T = np.full(len(tokens_T), NONE, dtype=np.int64)
            grams_T[known_T] = inverse
            grams.append(Grams(contexts_T, grams_T))
            contexts_T = _before(grams_T, place_T)
        return cls(tuple(orders), vocab_size), grams

    @property
    def parameters(self) -> int:
        """How many counts the model holds."""
        return sum(len(order.keys_G) for order in self.orders)

    def log_probabilities(self, tokens_T: IntArray, starts_T: BoolArray) -> Array:
        """Return the natural logarithm of each token's probability, shape (T,)."""
        probability_T = np.full(len(tokens_T), 1.0 / self.vocab_size)
        for order, found in zip(self.orders, self.found(tokens_T, starts_T), strict=True):
            probability_T = _interpolate(order, *found, probability_T)
        log_T: Array = np.log(probability_T)
        return log_T

    def found(self, tokens_T: IntArray, starts_T: BoolArray) -> Iterator[Grams]:
        """Yield the contexts and grams of tokens, order after order."""
        place_T = _places(starts_T)
        contexts_T = np.zeros(len(tokens_T), dtype=np.int64)
        for order in self.orders:
            grams_T = self._find(order, contexts_T, tokens_T)
            yield Grams(contexts_T, grams_T)
            contexts_T = _before(grams_T, place_T)

    def _find(self, order: GramCounts, contexts_T: IntArray, tokens_T: IntArray) -> IntArray:
        """Number the grams that are known, else NONE."""
        wanted_T = np.where(contexts_T >= 0, contexts_T * self.vocab_size + tokens_T, NONE)
        places_T = np.searchsorted(order.keys_G, wanted_T)
        found_T = order.keys_G[np.minimum(places_T, len(order.keys_G) - 1)] == wanted_T
        return np.where(found_T, places_T, NONE)


def _count(keys_G: IntArray, counts_G: IntArray, contexts: int, vocab_size: int) -> GramCounts:
    contexts_G = keys_G // vocab_size
    totals_C = np.bincount(contexts_G, weights=counts_G, minlength=contexts).astype(np.int64)
    kinds_C = np.bincount(contexts_G, minlength=contexts)
    return GramCounts(keys_G, counts_G, totals_C, kinds_C)


def _interpolate(
    order: GramCounts, contexts_T: IntArray, grams_T: IntArray, lower_T: Array
) -> Array:
    """Mix one order's frequencies with the probabilities of the order below."""
    seen_T = contexts_T >= 0
    totals_T = np.where(seen_T, order.totals_C[contexts_T], 0)
    kinds_T = np.where(seen_T, order.kinds_C[contexts_T], 0)
    counts_T = np.where(grams_T >= 0, order.counts_G[grams_T], 0)
    mixed_T = (counts_T + kinds_T * lower_T) / np.maximum(totals_T + kinds_T, 1)
    return np.where(totals_T > 0, mixed_T, lower_T)


def _places(starts_T: BoolArray) -> IntArray:
    """Return each token's place in its row."""
    every_T = np.arange(len(starts_T), dtype=np.int64)
    return every_T - np.maximum.accumulate(np.where(starts_T, every_T, 0))


def _before(grams_T: IntArray, place_T: IntArray) -> IntArray:
    """Return the gram that ends one token earlier in the same row, else NONE."""
    before_T = np.concatenate([[NONE], grams_T[:-1]])
    return np.where(place_T > 0, before_T, NONE)


def log_probabilities_on_the_way(
    model: NgramModel,
    grams: Sequence[Grams],
    ends: Sequence[int],
    tokens_S: IntArray,
    starts_S: BoolArray,
) -> Array:
    """Return the logarithms of probabilities after so many tokens, shape (E, S)."""
    probability_SE = np.full((len(tokens_S), len(ends)), 1.0 / model.vocab_size)
    samples = model.found(tokens_S, starts_S)
    for order, counted, sample in zip(model.orders, grams, samples, strict=True):
        seen = _SampleCounts.of(order, counted, sample, np.asarray(ends), model.vocab_size)
        mixed_SE = seen.counts_SE + seen.kinds_SE * probability_SE
        mixed_SE /= np.maximum(seen.totals_SE + seen.kinds_SE, 1)
        probability_SE = np.where(seen.totals_SE > 0, mixed_SE, probability_SE)
    log_ES: Array = np.log(probability_SE).T
    return log_ES


@dataclass(frozen=True)
class _SampleCounts:
    """c(h, w), c(h) and T(h) of the sample's tokens, after each number of training tokens."""

    counts_SE: IntArray
    totals_SE: IntArray
    kinds_SE: IntArray

    @classmethod
    def of(
        cls,
        order: GramCounts,
        counted: Grams,
        sample: Grams,
        ends: IntArray,
        vocab_size: int,
    ) -> _SampleCounts:
        contexts_U = np.unique(sample.contexts_T[sample.contexts_T >= 0])
        # Grams are sorted by context: those of one context follow each other.
        first_U = np.searchsorted(order.keys_G, contexts_U * vocab_size)
        size_U = np.searchsorted(order.keys_G, (contexts_U + 1) * vocab_size) - first_U
        goes_on = size_U > 0  # what was only seen at the end of rows is no context
        contexts_U, first_U, size_U = contexts_U[goes_on], first_U[goes_on], size_U[goes_on]
        begin_U, count = np.cumsum(size_U) - size_U, int(size_U.sum())
        gram_H = np.repeat(first_U - begin_U, size_U) + np.arange(count)
        of_gram = np.full(len(order.keys_G) + 1, count)  # of NONE too, which is the last
        of_gram[gram_H] = np.arange(count)
        counts_EH = _up_to(ends, of_gram, counted.grams_T, order.counts_G[gram_H])
        at_S, known_S = _found_places(contexts_U, sample.contexts_T)
        return cls(
            _rows(counts_EH, of_gram[sample.grams_T], sample.grams_T >= 0),
            _rows(_sums(counts_EH, begin_U), at_S, known_S),
            _rows(_sums(counts_EH > 0, begin_U), at_S, known_S),
        )


def _found_places(numbers_U: IntArray, wanted_S: IntArray) -> tuple[IntArray, BoolArray]:
    """Return where each number is among the sorted ones, and whether it is."""
    at_S = np.searchsorted(numbers_U, wanted_S)
    known_S = np.isin(wanted_S, numbers_U)
    return at_S, known_S


def _sums(values_EH: IntArray | BoolArray, begin_U: IntArray) -> IntArray:
    """Add up the values of each context's grams, shape (E, U)."""
    if not len(begin_U):
        return np.zeros((len(values_EH), 0), dtype=np.int64)
    sums_EU: IntArray = np.add.reduceat(values_EH, begin_U, axis=1, dtype=np.int64)
    return sums_EU


def _up_to(ends: IntArray, of_gram: IntArray, grams_T: IntArray, all_H: IntArray) -> IntArray:
    """Count the grams of the first so many tokens, shape (E, H); those of all are known."""
    count = len(all_H)
    counts_EH = np.empty((len(ends), count), dtype=np.int64)
    parts = np.split(grams_T, ends[:-1])[:-1]
    for row_H, part in zip(counts_EH, parts, strict=False):  # the last row is of all
        row_H[:] = np.bincount(of_gram.take(part), minlength=count + 1)[:count]
    np.cumsum(counts_EH[:-1], axis=0, out=counts_EH[:-1])
    counts_EH[-1] = all_H
    return counts_EH


def _rows(values_EU: IntArray, at_S: IntArray, known_S: BoolArray) -> IntArray:
    """Return the values at each place, shape (S, E); 0 where nothing is known."""
    found = np.zeros((len(at_S), len(values_EU)), dtype=np.int64)
    found[known_S] = values_EU[:, at_S[known_S]].T
    return found


HELD_OUT_WINDOW = 1024
SAMPLE_WINDOW = 64


@dataclass(frozen=True)
class HeldOutCounts:
    """Held-out tokens of one evaluation domain, and where its windows start."""

    tokens_T: IntArray
    starts_T: BoolArray

    @classmethod
    def of(cls, domain: Domain, most: int) -> HeldOutCounts:
        """Take all held-out tokens, or evenly spaced windows of at most `most` in all."""
        shards = domain.validation
        if not shards.tokens:
            raise CorpusError(f"domain {domain.name!r} has no held-out text to be scored on")
        length = shards.tokens if shards.tokens <= most else min(HELD_OUT_WINDOW, most)
        count = max(min(shards.tokens, most) // length, 1)
        starts_B = np.linspace(0, shards.tokens - length, count).astype(np.int64)
        tokens_BL = shards.rows(starts_B, length)
        starts_T = np.arange(tokens_BL.size) % length == 0
        return cls(tokens_BL.astype(np.int64).ravel(), starts_T)

    def sample(self, most: int) -> HeldOutCounts:
        """Return evenly spaced pieces of at most so many tokens in all."""
        length = min(SAMPLE_WINDOW, most, len(self.tokens_T))
        count = max(min(most, len(self.tokens_T)) // length, 1)
        firsts_B = np.linspace(0, len(self.tokens_T) - length, count).astype(np.int64)
        at_T = (firsts_B[:, None] + np.arange(length)).ravel()
        starts_T = self.starts_T[at_T].copy()
        starts_T[::length] = True
        return HeldOutCounts(self.tokens_T[at_T], starts_T)


def draw_tokens(
    corpus: Corpus,
    mixture: Mixture,
    training: Training,
    *,
    window: int,
    rng: np.random.Generator,
) -> tuple[IntArray, BoolArray]:
    """Draw the training tokens of one trial."""
    weights_D, tokens = mixture.over(corpus.domain_names).array, training.tokens
    pools = pools_of(corpus, window, training)
    pieces: list[IntArray] = []
    lengths: list[IntArray] = []
    for domain, count in zip(corpus.domains, split_tokens(weights_D, tokens), strict=True):
        if count:
            shards, pool = _train(domain), pools.get(domain.name)
            if pool is None:
                drawn_T, length = _draw(shards, int(count), window, rng)
            else:
                drawn_T, length = _draw_pool(pool, shards, int(count), window, rng), window
            pieces.append(drawn_T)
            lengths.append(_lengths(int(count), length))
    return _shuffled(np.concatenate(pieces), np.concatenate(lengths), rng)


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


def _train(domain: Domain) -> TokenShards:
    if domain.train is None or not domain.train.tokens:
        raise CorpusError(f"domain {domain.name!r} has a weight but no tokens to train on")
    return domain.train


def _draw(
    shards: TokenShards, count: int, window: int, rng: np.random.Generator
) -> tuple[IntArray, int]:
    """Return `count` tokens of shuffled windows, epoch after epoch, and the windows' length."""
    length = min(window, shards.tokens)
    rows = shards.tokens // length
    needed = math.ceil(count / length)
    starts = [
        rng.integers(shards.tokens - rows * length + 1) + length * rng.permutation(rows)
        for _ in range(math.ceil(needed / rows))
    ]
    tokens_BL = shards.rows(np.concatenate(starts)[:needed], length)
    return tokens_BL.astype(np.int64).ravel()[:count], length


def _draw_pool(
    pool: Pool, shards: TokenShards, count: int, window: int, rng: np.random.Generator
) -> IntArray:
    """Return `count` tokens of windows of a pool, epoch after epoch."""
    starts = pool.draw(math.ceil(count / window), rng) * window
    return shards.rows(starts, window).astype(np.int64).ravel()[:count]


def _lengths(count: int, length: int) -> IntArray:
    """Return the lengths of `count` tokens in windows, of which the last may be shorter."""
    lengths_B = np.full(math.ceil(count / length), length, dtype=np.int64)
    lengths_B[-1] = count - length * (len(lengths_B) - 1)
    return lengths_B


def _shuffled(
    tokens_T: IntArray, lengths_B: IntArray, rng: np.random.Generator
) -> tuple[IntArray, BoolArray]:
    """Put windows that follow each other into a random order."""
    order_B = rng.permutation(len(lengths_B))
    from_B = (np.cumsum(lengths_B) - lengths_B)[order_B]
    lengths_B = lengths_B[order_B]
    to_B = np.cumsum(lengths_B) - lengths_B
    starts_T = np.zeros(len(tokens_T), dtype=np.bool_)
    starts_T[to_B] = True
    return tokens_T[np.arange(len(tokens_T)) + np.repeat(from_B - to_B, lengths_B)], starts_T
