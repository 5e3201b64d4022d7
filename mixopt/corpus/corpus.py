"""A corpus: named domains as token shards on disk, with held-out text for each.

    corpus/
      index.json                   domains in order, tokenizer, what the text was made from, hashes
      <domain>/train/              token shards (mixopt.corpus.token_shards)
      <domain>/validation/
      <target>/validation/         an evaluation domain that is not trained on
      tasks/<task>.npz             items to score, as tokens (mixopt.corpus.tasks)

Shapes: D domains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.corpus.index_files import CORPUS_FORMAT, read_corpus_index
from mixopt.corpus.stored_corpus import local_corpus
from mixopt.corpus.token_shards import TokenShards
from mixopt.errors import CorpusError, PluginError, ShardError, plain_line
from mixopt.mixture import Mixture
from mixopt.system import inside, short_count

if TYPE_CHECKING:
    from mixopt.corpus.tasks import EncodedTask

FORMAT = CORPUS_FORMAT


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
    tasks: tuple[EncodedTask, ...] = ()

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Corpus:
        """Open a corpus that `prepare_corpus` has written.

        Args:
            path: The folder, or its URL in a store, from which it is fetched whole, once a node.
            verify: Compare the hash of every shard and of the tokenizer's files; large shards are
                remembered by size and time stamps. Sizes are always compared.

        Raises:
            CorpusError: There is none, or its index is damaged.
            ShardError: A shard is absent, truncated or altered, or leads out of the corpus.
        """
        path = local_corpus(path, _fault)
        index = read_corpus_index(path, verify=verify)
        return cls(
            path=path,
            domains=tuple(_open_domain(path, name, verify) for name in index.domains),
            targets=tuple(_open_target(path, name, verify) for name in index.targets),
            tokenizer=index.tokenizer,
            vocab_size=index.vocab_size,
            fingerprint=index.fingerprint,
            provenance=index.provenance,
            tasks=_open_tasks(path, index.tasks),
        )

    def __repr__(self) -> str:
        """Say where it is, and count domains, targets and tokens."""
        tokens = short_count(self._tokens)
        targets = "1 target" if len(self.targets) == 1 else f"{len(self.targets)} targets"
        counts = f"{len(self.domains)} domains, {targets}, {tokens} tokens"
        return f"Corpus({plain_line(str(self.path))!r}: {counts}, tokenizer {self.tokenizer})"

    @property
    def inventory(self) -> dict[str, int]:
        """Distinct training tokens of each domain: what a mixed one repeats counts once."""
        return {
            d.name: distinct(d.train.tokens, self.copies(d.name))
            for d in self.domains
            if d.train is not None
        }

    def copies(self, name: str) -> float:
        """Return how often a domain's training tokens have the same text, at least 1."""
        made = self.provenance.get("mixed", {}).get(name)
        return 1.0 if made is None else max(1.0, *made["epochs"].values())

    @property
    def _tokens(self) -> int:
        """Training tokens of all domains as they are stored."""
        return sum(d.train.tokens for d in self.domains if d.train is not None)

    @property
    def sample_tokens(self) -> dict[str, float]:
        """Mean tokens of a training document, of each domain that has documents."""
        return {
            d.name: d.train.tokens / d.train.documents
            for d in self.domains
            if d.train is not None and d.train.documents
        }

    @property
    def task_columns(self) -> tuple[str, ...]:
        """Names of all that the tasks measure, `task/<name>/<metric>`."""
        return tuple(task.column for task in self.tasks)

    @property
    def natural(self) -> Mixture:
        """Each domain's share of the available training tokens."""
        return Mixture.natural(self.inventory)


def distinct(stored: int, copies: float) -> int:
    """Return how many of the stored tokens or bytes differ, where each is there so often."""
    return stored if copies == 1 else max(1, round(stored / copies))


def _fault(path: Path) -> str | None:
    try:
        Corpus.open(path)
    except CorpusError as error:
        return str(error)
    return None


def document_ends(corpus: Corpus) -> tuple[int, ...]:
    """Return the ids that end a document: its tokenizer's, and those that are stated."""
    from mixopt.corpus.tokenizer import saved_tokenizer

    ends = set(_stated_ends(corpus.provenance.get("sources")))
    try:
        ends.add(saved_tokenizer(corpus.path, corpus.tokenizer).end_of_document)
    except (CorpusError, PluginError) as error:  # tokens of another tool, without its tokenizer
        if not ends:
            raise CorpusError(
                f"mask_documents: it is not known which id ends a document of {corpus.path}, since"
                " there is no tokenizer with it; state document_end of its domains, or leave"
                " mask_documents out"
            ) from error
    return tuple(sorted(ends))


def _stated_ends(made_from: Any) -> Iterator[int]:
    """Yield what sources state, parts of mixed domains too."""
    for name, value in made_from.items() if isinstance(made_from, dict) else ():
        if name == "document_end" and type(value) is int:
            yield value
        yield from _stated_ends(value)


def _open_tasks(path: Path, names: tuple[str, ...]) -> tuple[EncodedTask, ...]:
    if not names:  # a training job reads shards without what reads tasks
        return ()
    from mixopt.corpus.tasks import open_task

    return tuple(open_task(path, name) for name in names)


def _open_domain(path: Path, name: str, verify: bool) -> Domain:
    return Domain(name, _shards(path, name, "train", verify), _held_out(path, name, verify))


def _open_target(path: Path, name: str, verify: bool) -> Domain:
    return Domain(name, None, _held_out(path, name, verify))


def _held_out(path: Path, name: str, verify: bool) -> TokenShards:
    return _shards(path, name, "validation", verify)


def _shards(path: Path, name: str, split: str, verify: bool) -> TokenShards:
    return TokenShards.open(inside(path, f"{name}/{split}", ShardError), verify=verify)
