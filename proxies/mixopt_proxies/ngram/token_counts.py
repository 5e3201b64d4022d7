"""The tokens that an n-gram trial counts, and those that it is scored on.

Shapes: T tokens, B windows, D domains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixopt.corpus import Corpus, Domain, TokenShards
from mixopt.errors import CorpusError
from mixopt.mixture import Mixture
from mixopt.system import Array, BoolArray, IntArray
from mixopt.trials import Pool, SimulatedEpochs

HELD_OUT_WINDOW = 1024
SAMPLE_WINDOW = 64


@dataclass(frozen=True)
class HeldOutCounts:
    """Held-out tokens of one evaluation domain, the same for every trial.

    Attributes:
        tokens_T: Token ids, windows one after another.
        starts_T: Where a window starts.
    """

    tokens_T: IntArray
    starts_T: BoolArray

    @classmethod
    def of(cls, domain: Domain, most: int) -> HeldOutCounts:
        """Take all held-out tokens, or evenly spaced windows of at most `most` in all.

        Raises:
            CorpusError: There is no held-out text.
        """
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
    tokens: int,
    *,
    window: int,
    rng: np.random.Generator,
    target_tokens: int | None = None,
    inventory: Mapping[str, int] | None = None,
) -> tuple[IntArray, BoolArray]:
    """Draw the training tokens of one trial.

    Args:
        corpus: Token shards by domain.
        mixture: Share of each domain; it holds to one token.
        tokens: How many to draw.
        window: Tokens that are read in a row from one place.
        rng: Source of randomness.
        target_tokens: Length of the full run whose epochs are simulated, if they are.
        inventory: Distinct tokens of each whole domain; the corpus's when None.

    Returns:
        Token ids, shape (tokens,), windows of all domains shuffled; and where a window starts.

    Raises:
        MixtureError: The mixture has other domains than the corpus.
        CorpusError: A domain with a weight has no tokens to train on, or a pool smaller than one
            window.
    """
    weights_D = mixture.over(corpus.domain_names).array
    pools = make_pools(corpus, tokens, window, target_tokens, inventory)
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


def make_pools(
    corpus: Corpus,
    tokens: int,
    window: int,
    target_tokens: int | None,
    inventory: Mapping[str, int] | None = None,
) -> dict[str, Pool]:
    """Return the pool of each domain that has tokens, or none where no epochs are simulated.

    Raises:
        CorpusError: A pool is smaller than one window.
    """
    if target_tokens is None:
        return {}
    option = "proxy.options.window"
    simulated = SimulatedEpochs(tokens, target_tokens, window, option, inventory)
    filled = [(d.name, d.train.tokens) for d in corpus.domains if d.train and d.train.tokens]
    return {name: simulated.pool(corpus, name, count // window) for name, count in filled}


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
