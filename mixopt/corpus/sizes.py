"""The sizes of domains: estimated from a sample before anything is tokenised, or as stated.

`count_domains` reads a few megabytes of some files of a domain, and takes them for the rest; what
is not longer than the sample is counted exactly. Tokens follow from the tokens per byte of a
sample. Duplicates are counted, since finding them takes reading all. A BPE that the run will train
has no tokens yet: its domains are counted in bytes, which the run turns into tokens by what it
prepares.

Of a prepared corpus, which may be a sample of its domains, the sizes that the configuration states
count; what a mixed domain repeats of a part counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.corpus import distinct
from mixopt.corpus.domain_tokens import counted_tokens
from mixopt.corpus.environment import environment_documents
from mixopt.corpus.sources import TextFile, is_local, load_rows, read_validation, text_files
from mixopt.corpus.text_files import BadDocuments, BadPolicy, Reading, documents
from mixopt.corpus.tokenizer import BYTES, Tokenizer, bpe_vocabulary, open_tokenizer, plain_name
from mixopt.errors import ConfigError, CorpusError
from mixopt.system import Say, silent

if TYPE_CHECKING:
    from mixopt.corpus.corpus import Corpus, Domain

ESTIMATED = 0.05  # by so much what was prepared may be more than an estimate
SAMPLE_BYTES = 16_000_000  # of text that are read of a domain
LOOK_BYTES = 200_000  # of them where only its first documents are checked
TOKENISED_BYTES = 2_000_000  # of them that are tokenised
_FILES = 16  # that are read of a domain
_WHOLE, _SAMPLE = "all text read", "a sample of the text"


@dataclass(frozen=True)
class DomainCount:
    """How large a domain is.

    Attributes:
        name: The domain.
        files: Files that it is made of; 0 where it is not of files.
        bytes: Of text, in UTF-8; 0 of tokens.
        tokens: Of the configured tokenizer; None where that has yet to be trained.
        how: How the bytes were found.
        is_exact: Whether no part was estimated.
    """

    name: str
    files: int
    bytes: int
    tokens: int | None
    how: str
    is_exact: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        values = asdict(self)
        return {"domain": values.pop("name"), "exact": values.pop("is_exact"), **values}

    @property
    def stated(self) -> int | dict[str, int]:
        """What an inventory file says of it."""
        return {"bytes": self.bytes} if self.tokens is None else self.tokens


class _Size(NamedTuple):
    text: float
    documents: float
    is_exact: bool


@dataclass
class _Sample:
    """Texts that are kept for the tokens per byte, up to a number of bytes."""

    most: int = TOKENISED_BYTES
    texts: list[str] = field(default_factory=list)
    bytes: int = 0

    def measure(self, texts: Iterator[str], most: float) -> tuple[int, int, bool]:
        """Read so many bytes of text; return bytes, documents, and whether nothing is left."""
        text = number = 0
        for one in texts:
            content = one.encode()
            text, number = text + len(content), number + 1
            kept = content[: max(self.most - self.bytes, 0)]
            if kept:
                self.bytes += len(kept)
                self.texts.append(kept.decode(errors="ignore"))
            if text >= most:
                return text, number, False
        return text, number, True


def count_domains(config: CorpusConfig, say: Say = silent) -> list[DomainCount]:
    """Return the size of each training domain, in order."""
    is_text = not all(source.is_tokens for source in config.sources.values())
    is_here = is_text and not bpe_vocabulary(config.tokenizer)
    tokenizer = open_tokenizer(config.tokenizer) if is_here else None
    found = []
    for name, source in config.sources.items():
        if not source.has_text:
            raise CorpusError(f"domain {name!r}: its text is not available here; state its tokens")
        rooted = source.under(config.root)
        if source.is_tokens:
            whole = rooted.model_copy(update={"max_tokens": None})
            files, tokens = counted_tokens(name, whole)
            found.append(DomainCount(name, files, 0, tokens, "tokens in the files", True))
            say(f"{name}: {tokens:,} tokens")
            continue
        found.append(_count(name, rooted, tokenizer, plain_name(config.tokenizer) == BYTES))
        say(f"{name}: {found[-1].bytes:,} bytes of text, {found[-1].how}")
    return found


def first_look(domain: str, source: SourceConfig, on_bad: BadPolicy = "error") -> float:
    """Read the first documents of a domain's files as a preparation reads them.

    Args:
        domain: Its name.
        source: Where its text is; what is not on this machine is not read.
        on_bad: What becomes of a bad document: an error, or it is skipped.

    Returns:
        About how many bytes of text there are; 0 where that cannot be told.

    Raises:
        CorpusError: There is no such file, no text, no such column, or a bad document.
    """
    if not source.has_text or not is_local(source):
        return 0.0
    files = text_files(domain, source)
    if not all(isinstance(file.place, Path) for file in files):
        return 0.0
    reading = Reading(domain, source.column, BadDocuments(on_bad), cell=source.cell)
    size = _of_files(files, reading, _Sample(), LOOK_BYTES)
    if size.text < 1:
        places = source.one_path or ", ".join(str(file.place) for file in files[:3])
        no_text = f"domain {domain!r}: {places}: has no text; give it some, or leave it out"
        raise CorpusError(reading.bad.first or no_text)
    if source.validation is not None:
        next(read_validation(domain, source, BadDocuments(on_bad)), None)
    return size.text


def inventory_of(counts: list[DomainCount]) -> Mapping[str, int | dict[str, int]]:
    """Return what an inventory file says of the domains."""
    return {count.name: count.stated for count in counts}


def true_inventory(
    sources: Mapping[str, SourceConfig], corpus: Corpus, *, where: str = ""
) -> dict[str, int]:
    """Return the distinct tokens of each whole domain, in the corpus's order."""
    prefix = f"{where}: " if where else ""
    return {
        domain.name: _true_tokens(sources.get(domain.name), corpus, domain, prefix)
        for domain in corpus.domains
    }


def tokens_per_byte(corpus: Corpus) -> dict[str, float]:
    """Return how many tokens a byte of text makes, by training domain."""
    rates = {}
    for domain in corpus.domains:
        known = [one for one in (domain.train, domain.validation) if one is not None and one.bytes]
        if known:
            rates[domain.name] = known[0].tokens / known[0].bytes
    return rates


def _true_tokens(source: SourceConfig | None, corpus: Corpus, domain: Domain, prefix: str) -> int:
    assert domain.train is not None, "a training domain"
    copies = corpus.copies(domain.name)
    tokens = distinct(domain.train.tokens, copies)
    if source is None or not source.is_sized:
        return tokens
    field = "tokens" if source.tokens is not None else "bytes"
    stated = source.tokens or source.bytes or 0
    prepared = tokens if field == "tokens" else distinct(domain.train.bytes, copies)
    if stated < (1 - ESTIMATED) * prepared:
        raise ConfigError(
            f"{prefix}corpus.domains.{domain.name}.{field}: {stated} is less than the {prepared} "
            f"that were prepared from it: state the size of the whole domain, {prepared} or more, "
            "or prepare less with max_bytes"
        )
    return max(tokens, round(stated * tokens / max(prepared, 1)))


def _count(
    name: str, source: SourceConfig, tokenizer: Tokenizer | None, is_bytes: bool
) -> DomainCount:
    sample, reading = (
        _Sample(),
        Reading(name, source.column, BadDocuments("skip"), cell=source.cell),
    )
    number = 0
    if source.environment is not None:
        texts = (document.text for document in environment_documents(source.environment))
        text, count, _ = sample.measure(texts, float("inf"))
        size = _Size(text, count, True)
    elif is_local(source):
        files = text_files(name, source)
        number, size = len(files), _of_files(files, reading, sample, SAMPLE_BYTES)
    else:
        size = _of_dataset(source, reading, sample)
    if size.text < 1:
        no_text = f"domain {name!r}: no text was found; give it some, or leave it out"
        raise CorpusError(reading.bad.first or no_text)
    how = _WHOLE if size.is_exact else _SAMPLE
    tokens: float | None = None
    is_exact = size.is_exact
    if is_bytes:
        tokens = size.text + size.documents
    elif tokenizer is not None:
        tokens = size.text * len(tokenizer.encode(sample.texts)) / sample.bytes
        is_exact = False
    whole = None if tokens is None else round(tokens)
    return DomainCount(name, number, round(size.text), whole, how, is_exact)


def _of_files(files: list[TextFile], reading: Reading, sample: _Sample, most: int) -> _Size:
    """Measure so many bytes of files spread over all, and take the others by their length."""
    places = {round(k * (len(files) - 1) / (_FILES - 1)) for k in range(_FILES)}
    chosen = [files[place] for place in sorted(places)]
    text = number = length = 0.0
    is_exact = len(chosen) == len(files)
    for turn, file in enumerate(chosen, start=1):
        sample.most = TOKENISED_BYTES * turn // len(chosen)
        size = _of_file(file, reading, sample, most // len(chosen))
        text, number, length = text + size.text, number + size.documents, length + file.bytes
        is_exact = is_exact and size.is_exact
    times = sum(file.bytes for file in files) / max(length, 1.0)
    return _Size(text * times, number * times, is_exact)


def _of_file(file: TextFile, reading: Reading, sample: _Sample, most: int) -> _Size:
    """Measure so many bytes of text, and take them for the rest of the file."""
    rows, named = file.opened(reading)
    texts = documents(rows, rows.path, named)
    first, number, is_whole = sample.measure(texts, 0)
    if is_whole:
        return _Size(first, number, True)
    # What is read of a compressed file is ahead of its rows; by the same at both ends.
    begin = rows.share
    read, more, is_whole = sample.measure(texts, most - first)
    if is_whole:
        return _Size(first + read, number + more, True)
    times = 1 / (rows.share - begin or 1.0)
    return _Size(read * times, more * times, False)


def _of_dataset(source: SourceConfig, reading: Reading, sample: _Sample) -> _Size:
    """Measure the first rows of a data set, whose number of rows is known."""
    is_saved = Path(source.one_path or "").expanduser().is_dir()
    total = 0 if is_saved else _published_rows(source, reading)
    rows = load_rows(source.model_copy(update={"streaming": True}), reading)
    total = total or len(rows)

    def texts() -> Iterator[str]:
        for row in rows:
            reading.check_column(source.path, row)
            text = row[reading.column]
            yield text if isinstance(text, str) and reading.is_own(row, str(source.path)) else ""

    read, number, is_whole = sample.measure(islice(texts(), total), SAMPLE_BYTES)
    times = 1.0 if is_whole else total / number
    return _Size(read * times, number * times, is_whole)


def _published_rows(source: SourceConfig, reading: Reading) -> int:
    """Return how many rows the hub says that a split has."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(
            source.one_path, source.name, data_files=source.data_files
        )
        rows = builder.info.splits[source.split].num_examples
        if not rows:
            raise KeyError("no number of rows")
    except Exception as error:  # whatever the hub's client raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CorpusError(
            f"domain {reading.domain!r}: {source.path}: its size is not available here ({reason});"
            " state its tokens or bytes in corpus.domains"
        ) from error
    return int(rows)
