"""Let a proxy repeat each domain as often as the full run will.

A full run of T_target tokens repeats domain d weight_d x T_target / inventory_d times. With
simulated epochs a trial of T tokens draws domain d from a pool of inventory_d x T / T_target tokens
alone, and so as often: the first sequences of a permutation that is the same for all trials and
lengths. A pool of 3.4 sequences is three, and a fourth that four of ten epochs have, so that epochs
are exact to one sequence. Where the corpus is a sample, pools are shares of the whole domains.

Shapes: P sequences of a pool, B sequences drawn.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixopt.corpus import Corpus
from mixopt.errors import CorpusError
from mixopt.sampling import RowOrder, domain_key
from mixopt.system import IntArray


@dataclass(frozen=True, eq=False)
class Pool:
    """The sequences of a domain that a trial may draw.

    Attributes:
        sequences: How many, >= 1; a fraction stands for the share of epochs that have the last.
        rows_P: Numbers of the sequences in the domain, as many as `sequences` rounded up.
    """

    sequences: float
    rows_P: IntArray

    def draw(self, count: int, generator: np.random.Generator) -> IntArray:
        """Draw sequences without replacement, epoch after epoch, each in another order."""
        epochs: list[IntArray] = [np.empty(0, np.int64)]
        begun, missing = 0, count
        while missing > 0:
            size = self._before(begun + 1) - self._before(begun)
            epochs.append(generator.permutation(self.rows_P[:size])[:missing])
            begun, missing = begun + 1, missing - len(epochs[-1])
        return np.concatenate(epochs)

    def _before(self, epoch: int) -> int:
        """Count the sequences of the epochs before one; 1e-9 is for what rounding leaves."""
        return math.floor(epoch * self.sequences + 1e-9)


def make_pools(
    corpus: Corpus,
    sequences: Mapping[str, int],
    *,
    tokens: int,
    target_tokens: int | None,
    length: int,
    option: str,
    inventory: Mapping[str, int] | None = None,
) -> dict[str, Pool]:
    """Return the pool of each domain; none where no epochs are simulated.

    Args:
        corpus: What is trained on.
        sequences: How many each domain has.
        tokens: Tokens that one trial trains on, rounding to whole steps included.
        target_tokens: Tokens of the full run; None where it is not simulated.
        length: Tokens of a sequence that are trained on.
        option: The proxy's option that sets `length`, for messages.
        inventory: Distinct tokens of each whole domain, where the corpus is a sample of it.

    Raises:
        CorpusError: A pool would be smaller than a sequence.
    """
    if target_tokens is None:
        return {}
    share, pools = min(tokens / target_tokens, 1.0), dict[str, Pool]()
    seed = zlib.crc32(corpus.fingerprint.encode())
    for name, count in sequences.items():
        whole = (inventory or corpus.inventory)[name]
        wanted = whole * share / length
        if min(wanted, count) < 1:
            pool = int(whole * share)
            needed = math.ceil(length * target_tokens / max(whole, 1))
            shorter = f", set {option} to {pool} or less" if pool > 1 else ""
            raise CorpusError(
                f"domain {name!r}: a trial of {tokens} of the full run's {target_tokens} tokens"
                f" leaves a pool of {pool} of its {whole} tokens, but one sequence takes {length}:"
                f" raise proxy.tokens to {needed}{shorter}, or leave out proxy.simulate_epochs"
            )
        size = min(wanted, float(count))
        ordinal_P = np.arange(math.ceil(size - 1e-9), dtype=np.int64)
        order = RowOrder([count], [domain_key(seed, name)])
        pools[name] = Pool(size, order.rows(np.zeros_like(ordinal_P), ordinal_P))
    return pools
