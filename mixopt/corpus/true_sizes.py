"""The true sizes of domains; a prepared corpus may be a sample of them.

What the configuration states counts. `bytes` become tokens by the tokens per byte of what was
prepared of the domain. Where nothing is stated, what was prepared is all there is. What a mixed
domain repeats of a part counts once.

A stated size below what was prepared is a mistake, but for a few percent: `mixopt count` estimates
the size of compressed text, and what was read of a whole domain may then be a little more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixopt.corpus.corpus import distinct
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from mixopt.config import SourceConfig
    from mixopt.corpus.corpus import Corpus, Domain

ESTIMATED = 0.05  # by so much what was prepared may be more than an estimate


def true_inventory(
    sources: Mapping[str, SourceConfig], corpus: Corpus, *, where: str = ""
) -> dict[str, int]:
    """Return the distinct tokens of each whole domain, in the corpus's order.

    Args:
        sources: What is stated of each domain (mixopt.config.SourceConfig).
        corpus: What was prepared of them.
        where: The configuration's file, for messages.

    Raises:
        ConfigError: A domain is stated to be smaller than what was prepared of it.
    """
    prefix = f"{where}: " if where else ""
    return {
        domain.name: _tokens(
            domain.name, sources.get(domain.name), _Prepared.of(corpus, domain), prefix
        )
        for domain in corpus.domains
        if domain.train is not None
    }


def tokens_per_byte(corpus: Corpus) -> dict[str, float]:
    """Return how many tokens a byte of text makes, by training domain.

    Of tokens that another tool wrote, the held-out ones tell it, or nothing does.
    """
    rates = {}
    for domain in corpus.domains:
        known = [one for one in (domain.train, domain.validation) if one is not None and one.bytes]
        if known:
            rates[domain.name] = known[0].tokens / known[0].bytes
    return rates


@dataclass(frozen=True)
class _Prepared:
    """What was prepared of a domain, each text once."""

    tokens: int
    bytes: int

    @classmethod
    def of(cls, corpus: Corpus, domain: Domain) -> _Prepared:
        assert domain.train is not None, "a training domain"
        copies = corpus.copies(domain.name)
        return cls(distinct(domain.train.tokens, copies), distinct(domain.train.bytes, copies))


def _tokens(name: str, source: SourceConfig | None, train: _Prepared, prefix: str) -> int:
    if source is None or not source.is_sized:
        return train.tokens
    field = "tokens" if source.tokens is not None else "bytes"
    stated = source.tokens if source.tokens is not None else source.bytes
    prepared = train.tokens if field == "tokens" else train.bytes
    assert stated is not None, "a sized source states one of the two"
    if stated < (1 - ESTIMATED) * prepared:
        raise ConfigError(
            f"{prefix}corpus.domains.{name}.{field}: {stated} is less than the {prepared} that "
            f"were prepared from it: state the size of the whole domain, {prepared} or more, or "
            "prepare less with max_bytes"
        )
    return max(train.tokens, round(stated * train.tokens / max(prepared, 1)))
