"""The sizes of domains: estimated from a sample before tokenising, or as stated.

A few megabytes of some files represent the rest; a domain no larger than the sample is counted
exactly. Duplicates count, since finding them would take reading everything. With a BPE that the run
will train, domains are counted in bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus.domain_tokens import counted_tokens
from mixopt.corpus.environment import environment_documents
from mixopt.corpus.reader_context import BadPolicy, ReaderContext
from mixopt.corpus.sources import TextFile, is_local, read_validation, text_files
from mixopt.corpus.text_files import RowFile
from mixopt.corpus.tokenizer import BYTES, Tokenizer, bpe_vocabulary, open_tokenizer, plain_name
from mixopt.errors import CorpusError
from mixopt.system import PlainDict, Say, silent

SAMPLE_BYTES = 16_000_000  # of text, read from a domain
LOOK_BYTES = 200_000  # of text, read to check only the first documents
TOKENISED_BYTES = 2_000_000  # of the sample, tokenised
SAMPLE_FILES = 16  # files read from a domain
MAX_BLOCK_BYTES = 1_000_000  # of text, read beyond a sample until a compressed block ends


@dataclass(frozen=True)
class DomainCount:
    """The size of a domain.

    Attributes:
        name: The domain.
        files: Number of its files; 0 for a domain without files.
        bytes: Bytes of text in UTF-8; 0 for tokenised domains.
        tokens: Tokens of the configured tokenizer; None: the run has yet to train it.
        how: How the bytes were counted.
        is_exact: Whether no part was estimated.
    """

    name: str
    files: int
    bytes: int
    tokens: int | None
    how: str
    is_exact: bool

    def to_json(self) -> PlainDict:
        """Return the fields as plain values."""
        values = asdict(self)
        return {"domain": values.pop("name"), "exact": values.pop("is_exact"), **values}


class _Sample:
    """Measurements of a domain: bytes, documents, and texts to measure tokens per byte."""

    def __init__(self) -> None:
        self.bytes = self.documents = 0.0
        self.is_exact = True
        self.texts: list[str] = []
        self.text_bytes = 0  # of these texts

    def add_files(self, files: list[TextFile], reading: ReaderContext, limit: int) -> None:
        """Measure `limit` bytes of evenly spaced files; scale to all files by file size."""
        last = len(files) - 1
        indices = {round(k * last / (SAMPLE_FILES - 1)) for k in range(SAMPLE_FILES)}
        chosen = [files[k] for k in sorted(indices)]
        for turn, file in enumerate(chosen, start=1):
            rows = file.rows(reading)
            texts = reading.documents(rows, rows.name)
            max_text_bytes = TOKENISED_BYTES * turn // len(chosen)
            size, documents, share = self.measure(texts, limit // len(chosen), max_text_bytes, rows)
            to_whole = 1.0
            if share is not None:
                self.is_exact = False
                to_whole = 1 / (min(share, 1.0) or 1.0)
            self.bytes += size * to_whole
            self.documents += documents * to_whole
        chosen_bytes = sum(file.bytes for file in chosen)
        scale = sum(file.bytes for file in files) / max(chosen_bytes, 1)
        self.bytes *= scale
        self.documents *= scale
        self.is_exact = self.is_exact and len(chosen) == len(files)

    def measure(
        self,
        texts: Iterator[str],
        limit: float,
        max_text_bytes: int = TOKENISED_BYTES,
        file: RowFile | None = None,
    ) -> tuple[int, int, float | None]:
        """Read `limit` bytes of text, and on to the end of a compressed block.

        Returns:
            Bytes, documents, and their share of the file; None: all of it.
        """
        size = 0
        documents = 0
        share = 0.0
        for text in texts:
            share_before = share
            if file is not None:
                share = file.share()
            is_block_end = share > share_before
            if size >= limit and (is_block_end or size >= limit + MAX_BLOCK_BYTES):
                return size, documents, share_before
            content = text.encode()
            size += len(content)
            documents += 1
            sampled = content[: max(max_text_bytes - self.text_bytes, 0)]
            if sampled:
                self.text_bytes += len(sampled)
                self.texts.append(sampled.decode(errors="ignore"))
        return size, documents, None


def count_domains(config: CorpusConfig, say: Say = silent) -> list[DomainCount]:
    """Return the size of each training domain, in order."""
    has_text = not all(source.is_tokens for source in config.sources.values())
    tokenizer = None
    if has_text and not bpe_vocabulary(config.tokenizer):
        tokenizer = open_tokenizer(config.tokenizer)
    is_bytes = plain_name(config.tokenizer) == BYTES
    counts = []
    for name, source in config.sources.items():
        if not source.has_text:
            raise CorpusError(f"domain {name!r}: its text is not available here; state its tokens")
        rooted = source.under(config.root)
        if source.is_tokens:
            unlimited = rooted.model_copy(update={"max_tokens": None})
            files, tokens = counted_tokens(name, unlimited)
            counts.append(DomainCount(name, files, 0, tokens, "tokens in the files", True))
            say(f"{name}: {tokens:,} tokens")
            continue
        counts.append(_count(name, rooted, tokenizer, is_bytes))
        say(f"{name}: {counts[-1].bytes:,} bytes of text, {counts[-1].how}")
    return counts


def first_look(domain: str, source: SourceConfig, on_bad: BadPolicy = "error") -> float:
    """Read the first documents of a domain as a preparation does; estimate its bytes.

    Text that is not on this machine is not read and counts 0 bytes.

    Raises:
        CorpusError: A missing file or column, no text, or a bad document.
    """
    if not source.has_text or not is_local(source):
        return 0.0
    files = text_files(domain, source)
    if not all(isinstance(file.place, Path) for file in files):
        return 0.0
    reading = ReaderContext(domain, source, on_bad)
    sample = _Sample()
    sample.add_files(files, reading, LOOK_BYTES)
    if sample.bytes < 1:
        places = source.one_path or ", ".join(str(file.place) for file in files[:3])
        no_text = f"domain {domain!r}: {places}: no text; add text, or leave the domain out"
        raise CorpusError(reading.first_bad or no_text)
    if source.validation is not None:
        next(read_validation(source, reading), None)
    return sample.bytes


def inventory_of(counts: list[DomainCount]) -> Mapping[str, int | dict[str, int]]:
    """Return the content of an inventory file: tokens or bytes by domain."""
    inventory: dict[str, int | dict[str, int]] = {}
    for count in counts:
        if count.tokens is None:
            inventory[count.name] = {"bytes": count.bytes}
        else:
            inventory[count.name] = count.tokens
    return inventory


def _count(
    name: str, source: SourceConfig, tokenizer: Tokenizer | None, is_bytes: bool
) -> DomainCount:
    sample = _Sample()
    reading = ReaderContext(name, source, "skip")
    files = 0
    if source.environment is not None:
        texts = (text for text, _ in environment_documents(source.environment))
        sample.bytes, sample.documents, _ = sample.measure(texts, float("inf"))
    elif is_local(source):
        sources = text_files(name, source)
        files = len(sources)
        sample.add_files(sources, reading, SAMPLE_BYTES)
    else:
        raise CorpusError(
            f"domain {name!r}: {source.path}: its size is not available here; state its tokens or"
            " bytes in corpus.domains, or name its files, such as hf://datasets/OWNER/NAME"
        )
    if sample.bytes < 1:
        no_text = f"domain {name!r}: no text; add text, or leave the domain out"
        raise CorpusError(reading.first_bad or no_text)
    how = "all text read" if sample.is_exact else "a sample of the text"
    tokens: int | None = None
    if is_bytes:
        tokens = round(sample.bytes + sample.documents)
    elif tokenizer is not None:
        text_tokens = len(tokenizer.encode(sample.texts))
        tokens = round(sample.bytes * text_tokens / sample.text_bytes)
    is_exact = sample.is_exact and (is_bytes or tokens is None)
    return DomainCount(name, files, round(sample.bytes), tokens, how, is_exact)
