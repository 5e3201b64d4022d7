"""A corpus: named domains as token shards on disk, with held-out text for each.

    corpus/
      index.json                   domains in order, tokenizer, what the text was made from
      <domain>/train/              token shards (mixopt.corpus.token_shards)
      <domain>/validation/
      <target>/validation/         an evaluation domain that is not trained on

Shapes: D domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.corpus.token_shards import PREPARE_AGAIN, TokenShards
from mixopt.errors import CorpusError
from mixopt.mixture import Mixture
from mixopt.system import read_json

FORMAT = "mixopt-corpus/1"


@dataclass(frozen=True)
class Domain:
    """A named group of documents: tokens to train on (unless a target), and held-out tokens."""

    name: str
    train: TokenShards | None
    validation: TokenShards


class NamedDomains:
    """What is asked of domains to train on and of targets, wherever their text is."""

    domains: tuple[Domain, ...]
    targets: tuple[Domain, ...]

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


@dataclass(frozen=True)
class Corpus(NamedDomains):
    """The domains that can be trained on, and the targets that are only evaluated."""

    path: Path
    domains: tuple[Domain, ...]
    targets: tuple[Domain, ...]
    tokenizer: str
    vocab_size: int
    fingerprint: str
    provenance: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Corpus:
        """Open a corpus that `prepare_corpus` has written.

        Args:
            path: The folder.
            verify: Compare the hash of every shard; sizes are always compared.

        Raises:
            CorpusError: There is none, or its index is damaged.
            ShardError: A shard is absent, truncated or altered.
        """
        path = Path(path)
        index = read_json(path / "index.json", missing=lambda: _absent(path))
        try:
            if index["format"] != FORMAT:
                raise ValueError(f"format {index['format']!r}, expected {FORMAT!r}")
            return cls(
                path=path,
                domains=tuple(_open_domain(path, name, verify) for name in index["domains"]),
                targets=tuple(_open_target(path, name, verify) for name in index["targets"]),
                tokenizer=index["tokenizer"],
                vocab_size=int(index["vocab_size"]),
                fingerprint=index["fingerprint"],
                provenance=index["provenance"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{path / 'index.json'}: {error}; {PREPARE_AGAIN}") from error

    @property
    def inventory(self) -> dict[str, int]:
        """Distinct training tokens of each domain."""
        return {d.name: d.train.tokens for d in self.domains if d.train is not None}

    @property
    def natural(self) -> Mixture:
        """Each domain's share of the training tokens that there are."""
        return Mixture.natural(self.inventory)


def _absent(path: Path) -> CorpusError:
    return CorpusError(f"{path / 'index.json'}: not found; {PREPARE_AGAIN}")


def _open_domain(path: Path, name: str, verify: bool) -> Domain:
    train = TokenShards.open(path / name / "train", verify=verify)
    return Domain(name, train, TokenShards.open(path / name / "validation", verify=verify))


def _open_target(path: Path, name: str, verify: bool) -> Domain:
    return Domain(name, None, TokenShards.open(path / name / "validation", verify=verify))
