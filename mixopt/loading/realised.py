"""Realised samples, tokens and shares of each domain, as received by a loop.

Shapes: B samples, D domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.collate import Batch
from mixopt.loading.dataset import MixtureDataset
from mixopt.loading.rank_sum import RankSum
from mixopt.loading.token_counts import TokenCounts, alike, check_lengths
from mixopt.sampling import MixtureSampler, Unit
from mixopt.system import IntArray


@dataclass(frozen=True)
class Realised:
    """Counts by domain.

    Attributes:
        samples: Samples.
        tokens: Tokens, padding left out.
        supervised: Tokens that carry loss.
        shares: Shares of the tokens, or of those that carry loss where that is the sampler's unit.
        ranks: Whether counts in the sampler's unit are of `all` ranks, from the start of the
            stream, or of this rank's `own`, from the time when the loader was made.
    """

    samples: dict[str, int]
    tokens: dict[str, int]
    supervised: dict[str, int]
    shares: dict[str, float]
    ranks: Literal["all", "own"]

    @classmethod
    def of(
        cls,
        domains: Sequence[str],
        samples_D: IntArray,
        counts: TokenCounts,
        ranks: Literal["all", "own"],
        unit: Unit = "tokens",
    ) -> Realised:
        """Name the counts, each of shape (D,)."""
        shared = _in_unit(counts, unit)
        total = max(int(shared.sum()), 1)
        return cls(
            samples=dict(zip(domains, samples_D.tolist(), strict=True)),
            tokens=dict(zip(domains, counts.tokens_B.tolist(), strict=True)),
            supervised=dict(zip(domains, counts.supervised_B.tolist(), strict=True)),
            shares=dict(zip(domains, (shared / total).tolist(), strict=True)),
            ranks=ranks,
        )


class Account:
    """Adds up the batches that one loader hands out.

    Attributes:
        learns: Whether the sampler learns lengths from them.
    """

    def __init__(self, dataset: MixtureDataset, sampler: MixtureSampler) -> None:
        """Begin with nothing."""
        self.learns = sampler.is_sequential and not sampler.lengths.are_known
        self._domains = len(sampler.domains)
        self._length = dataset.length or 1
        self._is_plain = dataset.is_uniform and not sampler.is_sequential
        self._dataset, self._sampler = dataset, sampler
        zeros = np.zeros(self._domains, np.int64)
        self._samples, self._counted = zeros, TokenCounts(zeros, zeros)
        self._sum: RankSum | None = None

    def add(self, content: Batch, batch: int) -> None:
        """Add a batch that the loop is about to receive, and say its counts by domain in it.

        Raises:
            SamplerError: A sample is not as long as the sampler was told, or lengths are to be
                learned and samples do not say what their tokens are.
        """
        sampler, fields = self._sampler, self._dataset.fields
        if self._is_plain:
            if fields["tokens"] in content:  # it was counted when it was read
                return
            domain = content[fields["domain"]]
            tokens_D = np.bincount(domain, minlength=self._domains) * self._length
            content[fields["tokens"]] = content[fields["supervised"]] = tokens_D
            return
        domain = content[fields["domain"]]
        counts = self._counts(content, len(domain))
        if counts is None:
            if self.learns:
                raise SamplerError(
                    "lengths are learned from input_ids, and samples have none: give"
                    " MixtureSampler(lengths=)"
                )
            return
        if sampler.is_sequential:
            row = content[fields["row"]]
            unit = _in_unit(counts, sampler.unit)
            check_lengths(sampler.lengths, sampler.domains, unit, domain, row, sampler.unit)
        summed = counts.by_domain(domain, self._domains)
        content[fields["tokens"]], content[fields["supervised"]] = summed
        self._samples = self._samples + np.bincount(domain, minlength=self._domains)
        self._counted = self._counted.plus(summed)
        if self.learns:
            self._sum = self._sum or RankSum(sampler.world_size)
            sampler.settle(batch, self._sum.of(_in_unit(summed, sampler.unit)))

    def realised(self) -> Realised:
        """Return what was received (MixtureLoader.realised)."""
        sampler = self._sampler
        counts = np.array(list(sampler.counts().values()), np.int64)
        if self._dataset.is_uniform:
            tokens = counts * self._length
            return Realised.of(sampler.domains, counts, TokenCounts(tokens, tokens), "all")
        if not sampler.is_sequential:
            return Realised.of(sampler.domains, self._samples, self._counted, "own")
        exact = np.array(list(sampler.tokens().values()), np.int64)
        tokens, supervised = self._counted
        both = (exact, supervised) if sampler.unit == "tokens" else (tokens, exact)
        return Realised.of(sampler.domains, counts, TokenCounts(*both), "all", sampler.unit)

    def _counts(self, content: Batch, samples: int) -> TokenCounts | None:
        if self._dataset.is_uniform:
            return alike(samples, self._length)
        fields = self._dataset.fields
        if fields["tokens"] not in content:
            return None
        return TokenCounts(content[fields["tokens"]], content[fields["supervised"]])


def _in_unit(counts: TokenCounts, unit: Unit) -> IntArray:
    return counts.supervised_B if unit == "supervised" else counts.tokens_B
