"""Realised samples, tokens and shares of each domain, as received by a loop.

Shapes: B samples, D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.collate import Batch, TokenCounts
from mixopt.loading.dataset import MixtureDataset
from mixopt.sampling import MixtureSampler
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


class Account:
    """Adds up the batches that one loader hands out."""

    def __init__(self, dataset: MixtureDataset, sampler: MixtureSampler) -> None:
        """Begin with nothing."""
        self._domains = len(sampler.domains)
        self._length = dataset.length or 1
        self._by_tokens = sampler.unit != "samples"
        self._is_plain = dataset.is_uniform and not self._by_tokens
        self._dataset, self._sampler = dataset, sampler
        zeros = np.zeros(self._domains, np.int64)
        self._samples, self._counted = zeros, TokenCounts(zeros, zeros)

    def add(self, content: Batch) -> None:
        """Add a batch that the loop is about to receive, and say its counts by domain in it.

        Raises:
            SamplerError: A sample is not as long as the sampler was told.
        """
        fields = self._dataset.fields
        if self._is_plain and fields["tokens"] in content:  # it was counted when it was read
            return
        domain = content[fields["domain"]]
        if self._is_plain:
            tokens_D = np.bincount(domain, minlength=self._domains) * self._length
            content[fields["tokens"]] = content[fields["supervised"]] = tokens_D
            return
        counts = self._counts(content, len(domain))
        if counts is None:
            return
        if self._by_tokens:
            self._check_lengths(counts, domain, content[fields["row"]])
        summed = counts.by_domain(domain, self._domains)
        content[fields["tokens"]], content[fields["supervised"]] = summed
        self._samples = self._samples + np.bincount(domain, minlength=self._domains)
        self._counted = TokenCounts(
            *(before + more for before, more in zip(self._counted, summed, strict=True))
        )

    def realised(self) -> Realised:
        """Return what was received (MixtureLoader.realised)."""
        sampler = self._sampler
        counts = np.array(list(sampler.counts().values()), np.int64)
        if self._dataset.is_uniform:
            tokens = counts * self._length
            return _named(sampler, counts, TokenCounts(tokens, tokens), "all")
        if not self._by_tokens:
            return _named(sampler, self._samples, self._counted, "own")
        exact = np.array(list(sampler.tokens().values()), np.int64)
        tokens, supervised = self._counted
        both = (exact, supervised) if sampler.unit == "tokens" else (tokens, exact)
        return _named(sampler, counts, TokenCounts(*both), "all")

    def _counts(self, content: Batch, samples: int) -> TokenCounts | None:
        if self._dataset.is_uniform:
            each = np.full(samples, self._length, np.int64)
            return TokenCounts(each, each)
        fields = self._dataset.fields
        if fields["tokens"] not in content:
            return None
        return TokenCounts(content[fields["tokens"]], content[fields["supervised"]])

    def _check_lengths(self, counts: TokenCounts, domain_B: IntArray, row_B: IntArray) -> None:
        sampler = self._sampler
        counted_B = counts.of(sampler.unit)
        for d in np.unique(domain_B).tolist():
            here = np.flatnonzero(domain_B == d)
            lengths = sampler.order.layout.lengths[d]
            given = lengths if isinstance(lengths, int) else lengths[row_B[here]]
            wrong = np.flatnonzero(given != counted_B[here])
            if len(wrong):
                k = int(here[wrong[0]])
                given_k = int(np.broadcast_to(given, here.shape)[wrong[0]])
                kind = " that carry loss" if sampler.unit == "supervised" else ""
                raise SamplerError(
                    f"lengths: domain {sampler.domains[d]!r}, row {int(row_B[k])}: has"
                    f" {int(counted_B[k])} tokens{kind}, but lengths has {given_k}; count them"
                    " again"
                )


def _named(
    sampler: MixtureSampler, samples_D: IntArray, counts: TokenCounts, ranks: Literal["all", "own"]
) -> Realised:
    shared = counts.of(sampler.unit)
    total = max(int(shared.sum()), 1)
    parts = (samples_D, counts.tokens_B, counts.supervised_B, shared / total)
    samples, tokens, supervised, shares = (
        dict(zip(sampler.domains, part.tolist(), strict=True)) for part in parts
    )
    return Realised(samples, tokens, supervised, shares, ranks)
