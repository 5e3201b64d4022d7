"""From nats per token to bits per byte, by the bytes of the held-out text that was scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixopt.corpus import Domain


def bits_per_nat(domains: Sequence[Domain]) -> dict[str, float] | None:
    """Return bits per byte for one nat per token of each domain: tokens / bytes / ln 2.

    Args:
        domains: Evaluation domains.

    Returns:
        By name; None where the bytes of one domain are not known, since a table has a unit for
        all domains or for none: its text is not here, or its tokens' tokenizer is not.
    """
    shards = {domain.name: domain.validation for domain in domains}
    if not all(held.bytes and held.tokens for held in shards.values()):
        return None
    return {name: held.tokens / held.bytes / math.log(2) for name, held in shards.items()}


def in_bits_per_byte(nats: Mapping[str, float], domains: Sequence[Domain]) -> dict[str, float]:
    """Return losses in bits per byte; none where the bytes of one domain are not known.

    Args:
        nats: Losses in nats per token, by evaluation domain.
        domains: The evaluation domains.
    """
    rates = bits_per_nat(domains)
    return {} if rates is None else {name: loss * rates[name] for name, loss in nats.items()}
