"""The learning curve of an n-gram model, without counting again at each of its points.

Counting sorts, and to sort the first tenth, the first two tenths ... of the tokens would cost five
times what the trial costs. But whoever has counted all tokens knows the number of each token's
context and gram, and to score a sample at each point, only the counts of the sample's own contexts
are needed, by the tenth that they were seen in: sums over the tokens, with no further sort. The
probabilities are exactly those of a model of so many tokens.

Shapes: T tokens of training, S of the sample, E points, U contexts or grams of the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixopt.system import Array, BoolArray, IntArray
from mixopt_proxies.ngram.model import GramCounts, Grams, NgramModel

NO_PLACE = -1


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
        seen = _SampleCounts.of(order, counted, asked, np.asarray(ends))
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
    ) -> _SampleCounts:
        contexts_U, grams_U = _distinct(asked.contexts_T), _distinct(asked.grams_T)
        of_context = _places_of(contexts_U, len(order.totals_C))
        context_T = of_context[counted.contexts_T]  # of NONE too, which is the last
        kept = np.flatnonzero(context_T >= 0)
        context, gram = context_T[kept], counted.grams_T[kept]
        borders = np.searchsorted(kept, ends)
        known = _places_of(grams_U, len(order.keys_G))[gram]
        first_G = np.full(len(order.keys_G), NO_PLACE, dtype=np.int32)
        # Of several, the last that is written counts: the place where the gram was first seen.
        first_G[gram[::-1]] = np.arange(len(gram) - 1, -1, -1, dtype=np.int32)
        new = np.sort(first_G[first_G >= 0])
        totals_UE = _by_point(context, borders, len(contexts_U))
        kinds_UE = _by_point(context[new], np.searchsorted(new, borders), len(contexts_U))
        counts_UE = _by_point(known, borders, len(grams_U))
        return cls(
            _rows(counts_UE, grams_U, asked.grams_T),
            _rows(totals_UE, contexts_U, asked.contexts_T),
            _rows(kinds_UE, contexts_U, asked.contexts_T),
        )


def _distinct(numbers_S: IntArray) -> IntArray:
    return np.unique(numbers_S[numbers_S >= 0])


def _places_of(numbers_U: IntArray, size: int) -> NDArray[np.int32]:
    """Return the place of each number among a few, of all numbers up to `size`, and of NONE."""
    places = np.full(size + 1, NO_PLACE, dtype=np.int32)
    places[numbers_U] = np.arange(len(numbers_U), dtype=np.int32)
    return places


def _by_point(place: NDArray[np.int32], borders: IntArray, places: int) -> IntArray:
    """Count by place up to each border, NO_PLACE left out."""
    parts = np.split(place, borders[:-1])
    counts = [np.bincount(part + 1, minlength=places + 1)[1:] for part in parts]
    return np.cumsum(np.stack(counts, axis=1), axis=1)


def _rows(counts_UE: IntArray, numbers_U: IntArray, asked_S: IntArray) -> IntArray:
    """Return the counts of each number that is asked for; 0 for none."""
    found = np.zeros((len(asked_S), counts_UE.shape[1]), dtype=np.int64)
    known = asked_S >= 0
    found[known] = counts_UE[np.searchsorted(numbers_U, asked_S[known])]
    return found
