"""Count the tokens of samples, and those that carry loss; padding is not counted.

What a sample says of itself is counted: `input_ids`, less what its `attention_mask` or its
`document` (-1) says is padding; `labels` that are not -100. Without labels all tokens carry loss.

Shapes: B samples, D domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixopt.errors import SamplerError
from mixopt.loading.packing import NO_LOSS
from mixopt.sampling import SampleLengths
from mixopt.system import IntArray


class TokenCounts(NamedTuple):
    """Tokens of each sample and those that carry loss, shape (B,)."""

    tokens_B: IntArray
    supervised_B: IntArray

    def by_domain(self, domain_B: IntArray, domains: int) -> TokenCounts:
        """Add up by domain, shape (D,)."""
        return TokenCounts(
            *(np.bincount(domain_B, each, domains).astype(np.int64) for each in self)
        )

    def plus(self, other: TokenCounts) -> TokenCounts:
        """Add other counts."""
        return TokenCounts(self.tokens_B + other.tokens_B, self.supervised_B + other.supervised_B)


def count_samples(samples: Sequence[Any]) -> TokenCounts | None:
    """Count the tokens of samples; None where they do not say what their tokens are."""
    counts = [_counted(sample) for sample in samples]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    array = np.array(known, np.int64).reshape(-1, 2)
    return TokenCounts(array[:, 0], array[:, 1])


def alike(samples: int, length: int) -> TokenCounts:
    """Count samples that are all of one length and carry loss throughout."""
    each = np.full(samples, length, np.int64)
    return TokenCounts(each, each)


def check_lengths(
    lengths: SampleLengths,
    names: Sequence[str],
    counted_B: IntArray,
    domain_B: IntArray,
    row_B: IntArray,
    unit: str,
) -> None:
    """Check that samples are as long as the sampler was told.

    Raises:
        SamplerError: One is not; the domain, the row and both numbers are named.
    """
    for d in np.unique(domain_B).tolist():
        if not lengths.is_known(d):
            continue
        here = np.flatnonzero(domain_B == d)
        told = np.array(lengths.of(d, row_B[here]), np.int64)
        wrong = np.flatnonzero(told != counted_B[here])
        if len(wrong):
            k = int(here[wrong[0]])
            raise SamplerError(
                f"lengths: domain {names[d]!r}, row {int(row_B[k])}: has {int(counted_B[k])} "
                f"tokens{' that carry loss' if unit == 'supervised' else ''}, but lengths has "
                f"{int(told[wrong[0]])}; count them again, or leave the domain out to have them "
                "learned"
            )


def _counted(sample: Any) -> tuple[int, int] | None:
    ids = sample.get("input_ids") if isinstance(sample, Mapping) else None
    if ids is None:
        return None
    tokens = _tokens(sample, len(ids))
    labels = sample.get("labels")
    if labels is None or np.ndim(labels) != 1:
        return tokens, tokens
    return tokens, int(np.count_nonzero(np.asarray(labels) != NO_LOSS))


def _tokens(sample: Mapping[str, Any], length: int) -> int:
    document, mask = sample.get("document"), sample.get("attention_mask")
    if document is not None and np.shape(document) == (length,):
        return int(np.count_nonzero(np.asarray(document) >= 0))
    if mask is not None and np.shape(mask) == (length,):
        return int(np.count_nonzero(mask))
    return length
