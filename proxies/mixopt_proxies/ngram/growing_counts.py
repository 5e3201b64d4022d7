"""The learning curve of an n-gram model, without counting again at each of its points.

Counting sorts, and to sort the first tenth, the first two tenths ... of the tokens would cost five
times what the trial costs. But whoever has counted all tokens knows the number of each token's
gram, and to score a sample at each point, only the grams of the sample's own contexts are needed,
by the tenth that they were seen in: one pass over the tokens for each order, with no further sort.
Of a context, c(h) is the sum and T(h) the number of its grams seen so far. The probabilities are
exactly those of a model of so many tokens.

Shapes: T tokens of training, S of the sample, E points, U contexts of the sample, H grams of those
contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixopt.system import Array, BoolArray, IntArray
from mixopt_proxies.ngram.model import GramCounts, Grams, NgramModel


def log_probabilities_on_the_way(
    model: NgramModel,
    grams: Sequence[Grams],
    ends: Sequence[int],
    tokens_S: IntArray,
    starts_S: BoolArray,
) -> Array:
    """Return the logarithms of probabilities after so many tokens, shape (E, S).

    Args:
        model: Of all tokens.
        grams: What `NgramModel.counted` returned beside it.
        ends: Numbers of tokens, rising; the last is all of them.
        tokens_S: Token ids of the sample, rows one after another.
        starts_S: Where a row starts.
    """
    probability_SE = np.full((len(tokens_S), len(ends)), 1.0 / model.vocab_size)
    sample = model.found(tokens_S, starts_S)
    for order, counted, asked in zip(model.orders, grams, sample, strict=True):
        seen = _SampleCounts.of(order, counted, asked, np.asarray(ends), model.vocab_size)
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
        asked: Grams,
        ends: IntArray,
        vocab_size: int,
    ) -> _SampleCounts:
        contexts_U = np.unique(asked.contexts_T[asked.contexts_T >= 0])
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
        at_S, known_S = _places(contexts_U, asked.contexts_T)
        return cls(
            _rows(counts_EH, of_gram[asked.grams_T], asked.grams_T >= 0),
            _rows(_sums(counts_EH, begin_U), at_S, known_S),
            _rows(_sums(counts_EH > 0, begin_U), at_S, known_S),
        )


def _places(numbers_U: IntArray, asked_S: IntArray) -> tuple[IntArray, BoolArray]:
    """Return where each number is among the sorted ones, and whether it is."""
    at_S = np.searchsorted(numbers_U, asked_S)
    known_S = np.isin(asked_S, numbers_U)
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
