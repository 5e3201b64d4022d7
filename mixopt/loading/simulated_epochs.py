"""Simulated epochs: a proxy repeats each domain as often as the full run.

A full run of T_target tokens repeats domain d weight_d x T_target / inventory_d times. With
simulated epochs a trial of T tokens draws domain d only from a pool of inventory_d x T / T_target
tokens, which gives the same epochs. Pools are the first sequences of a permutation common to all
trials and lengths. A pool of 3.4 sequences has three, and a fourth in four of ten epochs, so that
epochs are exact to one sequence. If the corpus is a sample, pools are shares of the whole domains.

Shapes: P sequences of a pool, B sequences drawn.
"""

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
        sequences: Their number, >= 1; the fraction is the share of epochs with the last one.
        rows_P: Indices of the sequences in the domain, `sequences` rounded up.
    """

    sequences: float
    rows_P: IntArray

    def draw(self, count: int, generator: np.random.Generator) -> IntArray:
        """Draw sequences without replacement in each epoch, reshuffled every epoch."""
        epochs: list[IntArray] = [np.empty(0, np.int64)]
        epoch = 0
        missing = count
        while missing > 0:
            size = self._before(epoch + 1) - self._before(epoch)
            drawn = generator.permutation(self.rows_P[:size])[:missing]
            epochs.append(drawn)
            epoch += 1
            missing -= len(drawn)
        return np.concatenate(epochs)

    def _before(self, epoch: int) -> int:
        """Return the number of sequences in the epochs before one; 1e-9 is for rounding."""
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
    """Return the pool of each domain; empty without simulated epochs.

    Args:
        corpus: The training corpus.
        sequences: Number of sequences of each domain.
        tokens: Training tokens of a trial, rounded to whole steps.
        target_tokens: Tokens of the full run; None: no simulated epochs.
        length: Training tokens in a sequence.
        option: The proxy's option for `length`, for messages.
        inventory: Distinct tokens of each whole domain, if the corpus is a sample.

    Raises:
        CorpusError: A pool would be smaller than a sequence.
    """
    if target_tokens is None:
        return {}
    share = min(tokens / target_tokens, 1.0)
    pools = dict[str, Pool]()
    seed = zlib.crc32(corpus.fingerprint.encode())
    for name, count in sequences.items():
        available = (inventory or corpus.inventory)[name]
        pool_rows = available * share / length
        if min(pool_rows, count) < 1:
            pool = int(available * share)
            needed = math.ceil(length * target_tokens / max(available, 1))
            shorter = f", set {option} to {pool} or less" if pool > 1 else ""
            raise CorpusError(
                f"domain {name!r}: a trial of {tokens} of the full run's {target_tokens} tokens"
                f" leaves a pool of {pool} of its {available} tokens, but one sequence takes"
                f" {length}: raise proxy.tokens to {needed}{shorter}, or leave out"
                " proxy.simulate_epochs"
            )
        size = min(pool_rows, float(count))
        ordinal_P = np.arange(math.ceil(size - 1e-9), dtype=np.int64)
        order = RowOrder([count], [domain_key(seed, name)])
        pools[name] = Pool(size, order.rows(np.zeros_like(ordinal_P), ordinal_P))
    return pools
