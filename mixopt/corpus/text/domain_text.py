"""The text of one domain: read from its source, deduplicated, split and spooled to disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.text.documents import BadDocuments, Document, content_digest
from mixopt.corpus.text.environment import DOMAIN_BYTES, LEAST_BYTES, Environment
from mixopt.corpus.text.held_out_split import HeldOutSplit
from mixopt.corpus.text.sources import read_documents, read_validation
from mixopt.corpus.text.spool import Spool, Spooled
from mixopt.errors import CorpusError
from mixopt.system import CachedObject


@dataclass
class DomainText:
    """Spooled documents of a domain, and what was left out on the way.

    Attributes:
        name: The domain or target.
        train: Documents to train on; none for a target.
        validation: Held-out documents.
        bad: Documents that could not be read.
        left_out: How many documents were empty or duplicates.
        equal_to_evaluation: Training documents that are held out elsewhere.
        objects: What was fetched of stores.
    """

    name: str
    train: Spool | None
    validation: Spool
    bad: BadDocuments
    left_out: Counter[str] = field(default_factory=Counter)
    equal_to_evaluation: int = 0
    objects: list[dict[str, Any]] = field(default_factory=list)
    _held_out: frozenset[bytes] = frozenset()
    _with_answers: frozenset[bytes] = frozenset()

    @property
    def is_target(self) -> bool:
        """Whether it is only evaluated."""
        return self.train is None

    def training(self) -> Iterator[Spooled]:
        """Give the documents to train on, without those that are held out or have answers."""
        gone = self.left_out_digests
        for document in self.train or ():
            if document.digest not in gone:
                yield document

    def drop_answers(self, digests: Iterable[bytes]) -> None:
        """Leave out these training documents, which have answers of tasks."""
        self._with_answers = frozenset(digests)

    def drop_equal_to(self, held_out: Iterable[bytes]) -> None:
        """Leave these digests out of the training documents from now on."""
        if self.train is not None:
            self._held_out = frozenset(held_out).intersection(self.train.digests())
        if self.train is not None and self._held_out:
            found = sum(digest in self._held_out for digest in self.train.digests())
            self.equal_to_evaluation = found

    @property
    def left_out_digests(self) -> frozenset[bytes]:
        """Digests of training documents that are held out somewhere, or have answers of tasks."""
        return self._held_out | self._with_answers

    def to_json(self) -> dict[str, Any]:
        """Return what another process needs, besides the folder, to continue with it."""
        spools = [one for one in (self.train, self.validation) if one is not None]
        return {
            "name": self.name,
            "spools": [[one.documents, one.bytes, one.starts] for one in spools],
            "bad": [self.bad.policy, self.bad.count, self.bad.first],
            "left_out": dict(self.left_out),
            "objects": self.objects,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], folder: Path) -> DomainText:
        """Take the text that another process has spooled in a folder."""
        *train, held_out = content["spools"]
        return cls(
            content["name"],
            Spool(folder / "train", *train[0]) if train else None,
            Spool(folder / "validation", *held_out),
            BadDocuments(*content["bad"]),
            Counter(content["left_out"]),
            objects=content["objects"],
        )

    def note(self, fetched: CachedObject) -> None:
        """Note what an object of a store was when it was fetched."""
        self.objects.append(fetched.to_json())

    @property
    def counts(self) -> dict[str, int | str]:
        """What was read and what was left out, for the corpus index."""
        counts: dict[str, int | str] = {
            "train_documents": self._train_documents,
            "validation_documents": self.validation.documents,
            "empty": self.left_out["empty"],
            "duplicates": self.left_out["duplicates"],
            "equal_to_evaluation": self.equal_to_evaluation,
            "bad": self.bad.count,
        }
        if self._with_answers:
            counts["answers_of_tasks"] = len(self._with_answers)
        return counts | ({"first_bad": self.bad.first} if self.bad.first else {})

    @property
    def _train_documents(self) -> int:
        gone = self.equal_to_evaluation + len(self._with_answers - self._held_out)
        return self.train.documents - gone if self.train else 0

    @property
    def summary(self) -> str:
        """One line: how much text there is."""
        held_out = f"{self.validation.bytes / 1e6:.2f} MB"
        if self.train is None:
            line = (
                f"{self.name}: {self.validation.documents:,} documents, {held_out}, evaluation only"
            )
        else:
            documents = self.validation.documents + self.train.documents
            trained = f"{self.train.bytes / 1e6:.2f} MB to train on"
            line = f"{self.name}: {documents:,} documents, {trained}, {held_out} held out"
        left_out = {**self.left_out, "bad": self.bad.count}
        said = ", ".join(_counted(count, what) for what, count in left_out.items() if count)
        return f"{line} ({said} left out)" if said else line


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"


def read_domain(
    name: str,
    source: SourceConfig,
    config: CorpusConfig,
    environment: Environment,
    folder: Path,
    seed: int,
) -> DomainText:
    """Read a training domain and split it.

    Args:
        name: The domain.
        source: Where its documents are.
        config: Fractions, limits and policy.
        environment: Text of the installed packages.
        folder: Where to spool.
        seed: Which documents are held out.

    Raises:
        CorpusError: The source cannot be read, has no documents or too few to split.
    """
    train, validation = Spool(folder / "train"), Spool(folder / "validation")
    text = DomainText(name, train, validation, BadDocuments(config.on_bad_document))
    seen: set[bytes] = set()
    limit = source.max_bytes or config.max_bytes
    with train, validation:
        if source.validation is not None:
            given = map(Document, read_validation(name, source, text.bad, text.note))
            _spool_all(_distinct(text, given, config.max_validation_bytes, seen), validation)
            _check_any(text, validation, "held-out ")
        documents = _documents(name, source, text, environment)
        distinct = _distinct(text, documents, _limit(source, limit), seen)
        if source.validation is not None:
            _spool_all(distinct, train)
        else:
            held_out = HeldOutSplit(config.validation_fraction, config.max_validation_bytes, seed)
            _split(distinct, held_out, train, validation)
    _check_enough(text, source, limit)
    return text


def read_target(
    name: str,
    source: SourceConfig,
    config: CorpusConfig,
    environment: Environment,
    folder: Path,
) -> DomainText:
    """Read a target, all of whose documents are held out, up to `max_validation_bytes`.

    Args:
        name: The target.
        source: Where its documents are; `validation` names them when it is given.
        config: Limits and policy.
        environment: Text of the installed packages.
        folder: Where to spool.

    Raises:
        CorpusError: The source cannot be read or has no documents.
    """
    validation = Spool(folder / "validation")
    text = DomainText(name, None, validation, BadDocuments(config.on_bad_document))
    if source.validation is not None:
        documents: Iterator[Document] = map(
            Document, read_validation(name, source, text.bad, text.note)
        )
    else:
        documents = _documents(name, source, text, environment)
    limit = min(config.max_validation_bytes, source.max_bytes or config.max_validation_bytes)
    with validation:
        _spool_all(_distinct(text, documents, limit, set()), validation)
    _check_any(text, validation, "")
    return text


def _documents(
    name: str, source: SourceConfig, text: DomainText, environment: Environment
) -> Iterator[Document]:
    if source.environment is not None:
        return environment.documents(source.environment)
    return map(Document, read_documents(name, source, text.bad, text.note))


def _limit(source: SourceConfig, limit: int | None) -> int | None:
    return limit or (None if source.environment is None else DOMAIN_BYTES)


def _distinct(
    text: DomainText, documents: Iterator[Document], limit: int | None, seen: set[bytes]
) -> Iterator[tuple[Document, Spooled]]:
    """Give documents not seen before, up to `limit` bytes; the last one is cut there."""
    given = 0
    for document in documents:
        digest = content_digest(document.text)
        if not document.text.strip() or digest in seen:
            text.left_out["duplicates" if digest in seen else "empty"] += 1
            continue
        seen.add(digest)
        content = document.text.encode()
        if limit is not None and given + len(content) >= limit:
            content = content[: limit - given].decode("utf-8", errors="ignore").encode()
            yield document, Spooled(digest, content)
            return
        given += len(content)
        yield document, Spooled(digest, content)


def _spool_all(documents: Iterable[tuple[Document, Spooled]], spool: Spool) -> None:
    for _, document in documents:
        spool.add(*document)


def _split(
    documents: Iterable[tuple[Document, Spooled]],
    held_out: HeldOutSplit,
    train: Spool,
    validation: Spool,
) -> None:
    for document, spooled in documents:
        _spool_all(held_out.add(document, spooled), train)
    _spool_all(held_out.finish(), train)
    _spool_all(held_out.kept, validation)


def _check_any(text: DomainText, spool: Spool, what: str) -> None:
    if spool.documents == 0:
        bad = f" ({text.bad.count} bad ones skipped, the first {text.bad.first})"
        raise CorpusError(
            f"domain {text.name!r}: no {what}documents{bad if text.bad.count else ''};"
            " give it some, or leave it out"
        )


def _check_enough(text: DomainText, source: SourceConfig, limit: int | None) -> None:
    assert text.train is not None, "only training domains are split"
    total = text.train.bytes + text.validation.bytes
    least = min(LEAST_BYTES, limit or LEAST_BYTES)
    if source.environment is not None and total < 0.99 * least:
        raise CorpusError(
            f"domain {text.name!r}: the installed packages have {total / 1e6:.2f} MB of"
            f" {source.environment!r}, less than {least / 1e6:.2f} MB; leave it out, use it"
            f" under evaluation, or accept it with max_bytes: {total // 10_000 * 10_000}"
        )
    if text.train.documents == 0 and text.validation.documents > 0:
        raise CorpusError(
            f"domain {text.name!r}: its {text.validation.documents} documents are all held out, "
            "so none is left to train on; name files of held-out documents as 'validation'"
        )
    _check_any(text, text.train, "")
