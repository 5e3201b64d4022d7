"""A corpus: named domains as token shards on disk, with held-out text for each.

    corpus/
      index.json                   domains in order, tokenizer, what the text was made from
      <domain>/train/              token shards (mixopt.tokens)
      <domain>/validation/
      <target>/validation/         an evaluation domain that is not trained on

Shapes: D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import CorpusError
from mixopt.files import read_json
from mixopt.mixture import Mixture
from mixopt.tokens import TokenShards


@dataclass(frozen=True)
class Domain:
    """A named group of documents: tokens to train on (unless a target), and held-out tokens."""

    name: str
    train: TokenShards | None
    validation: TokenShards


@dataclass(frozen=True)
class Corpus:
    """The domains that can be trained on, and the targets that are only evaluated."""

    path: Path
    domains: tuple[Domain, ...]
    targets: tuple[Domain, ...]
    tokenizer: str
    vocab_size: int
    fingerprint: str
    provenance: dict[str, Any]

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the domains that can be trained on."""
        return tuple(domain.name for domain in self.domains)

    @property
    def evaluation(self) -> tuple[Domain, ...]:
        """All evaluation domains: the training domains' held-out text, then the targets."""
        return self.domains + self.targets

    @property
    def evaluation_names(self) -> tuple[str, ...]:
        """Names of all evaluation domains."""
        return tuple(domain.name for domain in self.evaluation)

    @property
    def inventory(self) -> dict[str, int]:
        """Distinct training tokens of each domain."""
        return {d.name: d.train.tokens for d in self.domains if d.train is not None}

    @property
    def natural(self) -> Mixture:
        """Each domain's share of the training tokens that there are."""
        return Mixture.natural(self.inventory)
