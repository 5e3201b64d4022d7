"""What is known of the sizes of domains before a document is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mixopt.config import DomainConfig
from mixopt.corpus import (
    BYTES,
    Corpus,
    counted_tokens,
    known_vocabulary,
    plain_name,
    true_inventory,
)
from mixopt.errors import CorpusError
from mixopt.run_directory import PREPARE, Run

if TYPE_CHECKING:
    from mixopt.config import Config, SourceConfig

BYTES_PER_TOKEN = 4.0  # of a trained tokenizer on plain text, about; measured once it is prepared
Basis = Literal["stated", "prepared", "estimated", "unknown"]


@dataclass(frozen=True)
class KnownSizes:
    """Sizes of whole domains and of what is prepared of them.

    Attributes:
        inventory: Tokens of the whole domains; None where they are not known.
        sample: Tokens that are prepared, or will be; None where they are not known.
        basis: `prepared` and `stated` are as they are; `estimated` are stated in bytes of a
            tokenizer whose tokens per byte are not known.
        vocab_size: Ids of the tokenizer, about where it is not known yet.
    """

    inventory: dict[str, int] | None
    sample: dict[str, int] | None
    basis: Basis
    vocab_size: int

    @property
    def is_exact(self) -> bool:
        """Whether what follows from the sizes can be refused."""
        return self.basis in ("stated", "prepared")


def known_sizes(config: Config, out: Path | None, source: str) -> KnownSizes:
    """Return the sizes that an experiment states, or that its run has prepared.

    Raises:
        ConfigError: A domain is stated to be smaller than what was prepared of it.
    """
    corpus = None if out is None else _prepared(Run(out, config, source))
    if corpus is not None:
        inventory = true_inventory(config.corpus.domains, corpus, where=source)
        return KnownSizes(inventory, corpus.inventory, "prepared", corpus.vocab_size)
    rate = 1.0 if plain_name(config.corpus.tokenizer) == BYTES else 1 / BYTES_PER_TOKEN
    vocabulary = known_vocabulary(config.corpus.tokenizer)
    return KnownSizes(*_stated(config, rate), vocabulary)


def _stated(
    config: Config, rate: float
) -> tuple[dict[str, int] | None, dict[str, int] | None, Basis]:
    sources = config.corpus.domains
    read = {name: _to_read(name, source, config, rate) for name, source in sources.items()}
    sample = {name: tokens for name, tokens in read.items() if tokens is not None}
    known = sample if len(sample) == len(sources) else None
    if not all(source.is_sized for source in sources.values()):
        return None, known, "unknown"
    inventory = {name: _size(source, rate) for name, source in sources.items()}
    exact = rate == 1.0 or all(source.tokens is not None for source in sources.values())
    return inventory, known, "stated" if exact else "estimated"


def _to_read(name: str, source: SourceConfig, config: Config, rate: float) -> int | None:
    """Return the tokens that will be read of a domain, where that is known beforehand."""
    if isinstance(source, DomainConfig) and source.mixed is not None:
        return source.mixed.tokens
    if source.is_tokens:
        try:
            return counted_tokens(name, source, read=False)
        except CorpusError:  # the check of sources says why
            return None
    most = source.max_bytes or config.corpus.max_bytes
    if most is None:
        return None
    read = max(1, round(most * rate))
    return min(read, _size(source, rate)) if source.is_sized else read


def _size(source: SourceConfig, rate: float) -> int:
    """Return the stated size of a whole domain in tokens."""
    return source.tokens or max(1, round((source.bytes or 0) * rate))


def _prepared(run: Run) -> Corpus | None:
    """Return the corpus of a run, where it is of this configuration."""
    index = run.path / "corpus" / "index.json"
    if not index.exists():
        return None
    recorded = run.manifest.steps.get(PREPARE.name)
    if recorded is None or recorded.fingerprint != run.fingerprint(PREPARE.name):
        return None
    return run.corpus
