"""A corpus: named domains as token shards on disk, with held-out text for each.

    corpus/
      index.json                   domains in order, tokenizer, sources of the text, hashes
      <domain>/train/              token shards (mixopt.corpus.token_shards)
      <domain>/validation/
      <target>/validation/         an evaluation-only domain
      tasks/<task>.npz             items to score, as tokens (mixopt.corpus.tasks)

A published corpus is fetched once per node, into a folder named by the SHA-256 of its `index.json`,
which is written last and names all files. A prepared corpus may be a sample of its domains: then
the stated sizes count, and repeated tokens of a mixed domain count once.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.corpus.index_files import (
    INDEX,
    MAX_COUNT,
    TASK_FOLDER,
    TOKENIZER_FILES,
    read_corpus_index,
)
from mixopt.corpus.token_shards import TokenShards
from mixopt.errors import ConfigError, CorpusError, PluginError, ShardError, plain_line
from mixopt.mixture import DomainContent, Mixture
from mixopt.system import (
    PlainDict,
    Say,
    below,
    cache_folder,
    check_links,
    fetched,
    file_hash,
    inside,
    is_url,
    list_objects,
    local_path,
    made_once,
    naming,
    object_exists,
    read_object,
    short_count,
    silent,
    temporary_path,
    under_folder,
    write_object,
)

if TYPE_CHECKING:
    from mixopt.config import Sources
    from mixopt.corpus.tasks import EncodedTask

ESTIMATED = 0.05  # relative error of a stated size: prepared text may exceed it by this much
_LOCAL_SUFFIXES = (".tmp", ".verified.json", ".lock")  # of files that are not part of a corpus


@dataclass(frozen=True)
class Domain:
    """A named group of documents.

    Attributes:
        name: Name of the domain or target, with `/` between the levels of a tree.
        train: Tokens to train on; None for a target.
        validation: Held-out tokens; no trial trains on them.
    """

    name: str
    train: TokenShards | None
    validation: TokenShards


@dataclass(frozen=True)
class Corpus:
    """The training domains, and the targets, which are only evaluated.

    Attributes:
        path: The folder of the corpus.
        domains: Training domains, in the order of the configuration.
        targets: Evaluation-only domains, in the order of the configuration.
        tokenizer: Name of the tokenizer, as in the configuration.
        vocab_size: Number of ids of the tokenizer.
        fingerprint: Fingerprint of the configuration that prepared it.
        provenance: Its sources and the counts of dropped documents, as plain values.
        tasks: Items whose continuations are scored.

    Examples:
        >>> run.corpus
        Corpus('runs/mine/corpus': 2 domains, 1 target, ... tokens, tokenizer bytes)
        >>> run.corpus.domain_names
        ('code', 'prose')
    """

    path: Path
    domains: tuple[Domain, ...]
    targets: tuple[Domain, ...]
    tokenizer: str
    vocab_size: int
    fingerprint: str
    provenance: PlainDict
    tasks: tuple[EncodedTask, ...] = ()

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Corpus:
        """Open a corpus that `prepare_corpus` has written.

        Args:
            path: The folder, or its URL in a store; a stored corpus is fetched whole, once per
                node.
            verify: Compare the hash of every shard and of the tokenizer's files; verified large
                shards are remembered by size and time stamps. Sizes are always compared.

        Raises:
            CorpusError: No corpus, or a damaged index.
            ShardError: A shard is absent, truncated, altered, or a link out of the corpus.
        """
        path = _fetch_corpus(str(path)) if is_url(path) else Path(path)
        index = read_corpus_index(path, verify=verify)
        tasks: tuple[EncodedTask, ...] = ()
        if names := index.texts("tasks"):  # a job reads shards without the imports of tasks
            from mixopt.corpus.tasks import open_task

            tasks = tuple(open_task(path, name) for name in names)

        def opened(name: str, split: str) -> TokenShards:
            return TokenShards.open(inside(path, f"{name}/{split}", ShardError), verify=verify)

        domains = [
            Domain(name, opened(name, "train"), opened(name, "validation"))
            for name in index.texts("domains")
        ]
        targets = [
            Domain(name, None, opened(name, "validation")) for name in index.texts("targets")
        ]
        return cls(
            path=path,
            domains=tuple(domains),
            targets=tuple(targets),
            tokenizer=index.text("tokenizer"),
            vocab_size=index.whole("vocab_size", 0, MAX_COUNT),
            fingerprint=index.text("fingerprint"),
            provenance=dict(index.part("provenance").content),
            tasks=tasks,
        )

    def __repr__(self) -> str:
        """Show the path, and the numbers of domains, targets and tokens."""
        tokens = short_count(sum(train.tokens for train in self.training.values()))
        targets = "1 target" if len(self.targets) == 1 else f"{len(self.targets)} targets"
        counts = f"{len(self.domains)} domains, {targets}, {tokens} tokens"
        return f"Corpus({plain_line(str(self.path))!r}: {counts}, tokenizer {self.tokenizer})"

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the training domains."""
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
        """Distinct training tokens of each domain; repeats in a mixed domain count once."""
        return {name: self.distinct(name, train.tokens) for name, train in self.training.items()}

    @property
    def contents(self) -> dict[str, DomainContent]:
        """Hash and distinct tokens of each training domain, to detect changes between trials."""
        tokens = self.inventory
        contents = {}
        for name, train in self.training.items():
            hashes = "".join(shard.sha256 for shard in train.shards).encode()
            sha256 = hashlib.sha256(hashes).hexdigest() if hashes else ""
            contents[name] = DomainContent(sha256, tokens[name])
        return contents

    def distinct(self, name: str, stored: int) -> int:
        """Return the distinct part of a domain's `stored` training tokens or bytes, at least 1."""
        mixed = self.provenance.get("mixed", {}).get(name)
        copies = 1.0 if mixed is None else max(1.0, *mixed["epochs"].values())
        return stored if copies == 1 else max(1, round(stored / copies))

    @property
    def training(self) -> dict[str, TokenShards]:
        """Shards to train on, by domain."""
        return {d.name: d.train for d in self.domains if d.train is not None}

    @property
    def sample_tokens(self) -> dict[str, float]:
        """Mean tokens of a training document, by domain; only domains with documents."""
        training = self.training.items()
        return {name: s.tokens / s.documents for name, s in training if s.documents}

    @property
    def task_columns(self) -> tuple[str, ...]:
        """Names of the task metrics, `task/<name>/<metric>`."""
        return tuple(task.column for task in self.tasks)

    @property
    def natural(self) -> Mixture:
        """Each domain's share of the available training tokens."""
        return Mixture.natural(self.inventory)


def document_ends(corpus: Corpus) -> tuple[int, ...]:
    """Return the ids that end a document: the tokenizer's and those stated by sources."""
    from mixopt.corpus.tokenizer import saved_tokenizer

    ends = set(_stated_ends(corpus.provenance.get("sources")))
    try:
        ends.add(saved_tokenizer(corpus.path, corpus.tokenizer).end_of_document)
    except (CorpusError, PluginError) as error:  # tokens of another tool, without its tokenizer
        if not ends:
            raise CorpusError(
                f"mask_documents: {corpus.path} has no tokenizer, so the end-of-document id is"
                " unknown; set document_end of its domains, or remove mask_documents"
            ) from error
    return tuple(sorted(ends))


def _stated_ends(sources: Any) -> Iterator[int]:
    """Yield the document_end of all sources, including parts of mixed domains."""
    if not isinstance(sources, dict):
        return
    for name, value in sources.items():
        if name == "document_end" and type(value) is int:
            yield value
        yield from _stated_ends(value)


def corpus_files(corpus: Path) -> list[Path]:
    """Return the files of a corpus, its index last, without temporary files and locks."""
    files = [p for p in corpus.rglob("*") if p.is_file() and not p.name.endswith(_LOCAL_SUFFIXES)]
    return sorted(files, key=lambda path: (path == corpus / INDEX, path))


def publish_corpus(corpus: Path, url: str, say: Say = silent) -> int:
    """Write a corpus to a store, its index last; return the number of files written."""
    check_links(corpus, CorpusError)
    index = under_folder(url, INDEX)
    if object_exists(index):
        if file_hash(fetched(list_objects(index)[0])) == file_hash(corpus / INDEX):
            return 0
        raise CorpusError(f"{url}: already holds another corpus; choose another URL, or delete it")
    files = corpus_files(corpus)
    for number, path in enumerate(files, start=1):
        name = path.relative_to(corpus).as_posix()
        write_object(path, under_folder(url, name))
        say(f"publish: {number} of {len(files)}: {name}")
    return len(files)


def check_prepared(where: str) -> None:
    """Check that a folder or URL holds a corpus, without reading it."""
    if is_url(where):
        list_objects(under_folder(where, INDEX))
    elif not (local_path(where) / INDEX).is_file():
        raise CorpusError(f"corpus.prepared: {where}: holds no prepared corpus (no {INDEX})")


def _fetch_corpus(url: str) -> Path:
    """Return the node's verified copy of a stored corpus; fetch the whole corpus if needed."""
    stored = list_objects(under_folder(url, INDEX))[0]
    listed = fetched(stored)
    target = cache_folder() / "corpora" / file_hash(listed) / "corpus"

    def find() -> Path | None:
        try:
            return Corpus.open(target).path if target.is_dir() else None
        except CorpusError:
            return None

    def fetch() -> Path:
        temporary = temporary_path(target)
        temporary.mkdir(parents=True)
        try:
            shutil.copyfile(listed, temporary / INDEX)
            _fetch_below(url, stored.url.removesuffix(INDEX), temporary)
            with naming(temporary, url):
                Corpus.open(temporary)
            shutil.rmtree(target, ignore_errors=True)
            return temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    return made_once(target.parent, find, fetch)


def _fetch_below(url: str, base: str, folder: Path) -> None:
    """Fetch the files that the index of a corpus names, and no others."""
    index = read_corpus_index(folder, verify=False)
    names = [*index.texts("domains"), *index.texts("targets"), TASK_FOLDER, *TOKENIZER_FILES]
    parts = tuple(f"{name}/" for name in names)
    for stored in list_objects(url):
        name = stored.url.removeprefix(base)
        if f"{name}/".startswith(parts) and not name.endswith(_LOCAL_SUFFIXES):
            path = below(folder, name, CorpusError)
            path.parent.mkdir(parents=True, exist_ok=True)
            read_object(stored, path)


def true_inventory(sources: Sources, corpus: Corpus, *, where: str = "") -> dict[str, int]:
    """Return the distinct tokens of each whole domain, stated or prepared, in corpus order."""
    inventory = corpus.inventory
    for name, source in sources.items():
        if name not in inventory or not source.is_sized:
            continue
        tokens = inventory[name]
        stated = source.tokens or source.bytes or 0
        if source.tokens is not None:
            field = "tokens"
            prepared = tokens
        else:
            field = "bytes"
            prepared = corpus.distinct(name, corpus.training[name].bytes)
        if stated < (1 - ESTIMATED) * prepared:
            prefix = f"{where}: " if where else ""
            raise ConfigError(
                f"{prefix}corpus.domains.{name}.{field}: {stated} is less"
                f" than the {prepared} prepared from it: state the size of the whole domain,"
                f" {prepared} or more, or prepare less with max_bytes"
            )
        inventory[name] = max(tokens, round(stated * tokens / max(prepared, 1)))
    return inventory


def tokens_per_byte(corpus: Corpus) -> dict[str, float]:
    """Return the tokens per byte of text, by training domain."""
    rates = {}
    for domain in corpus.domains:
        splits = [s for s in (domain.train, domain.validation) if s is not None and s.bytes]
        if splits:
            rates[domain.name] = splits[0].tokens / splits[0].bytes
    return rates


def bits_per_nat(domains: Sequence[Domain]) -> dict[str, float] | None:
    """Return bits per byte for one nat per token of each domain: tokens / bytes / ln 2."""
    shards = {domain.name: domain.validation for domain in domains}
    if not all(shard.bytes and shard.tokens for shard in shards.values()):
        return None
    return {name: shard.tokens / shard.bytes / math.log(2) for name, shard in shards.items()}


def in_bits_per_byte(nats: Mapping[str, float], domains: Sequence[Domain]) -> dict[str, float]:
    """Return losses in bits per byte; none if the bytes of a domain are unknown."""
    rates = bits_per_nat(domains)
    if rates is None:
        return {}
    return {name: loss * rates[name] for name, loss in nats.items()}
