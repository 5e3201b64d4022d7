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
from mixopt.corpus.sources import TextFile, is_local, read_validation, text_files
from mixopt.corpus.text_files import BadPolicy, ReaderContext, RowFile
from mixopt.corpus.tokenizer import BYTES, Tokenizer, bpe_vocabulary, open_tokenizer, plain_name
from mixopt.errors import CorpusError
from mixopt.system import PlainDict, Say, silent

SAMPLE_BYTES = 16_000_000  # of text, read from a domain
LOOK_BYTES = 200_000  # of text, read to check only the first documents
TOKENISED_BYTES = 2_000_000  # of the sample, tokenised
_FILES = 16  # files read from a domain
_BLOCK = 1_000_000  # of text, read beyond the sample until a block of a compressed file ends


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
        self.kept = 0  # bytes of these texts

    def add_files(self, files: list[TextFile], reading: ReaderContext, limit: int) -> None:
        """Measure `limit` bytes of evenly spaced files; scale to all files by file size."""
        indices = {round(k * (len(files) - 1) / (_FILES - 1)) for k in range(_FILES)}
        chosen = [files[k] for k in sorted(indices)]
        for turn, file in enumerate(chosen, start=1):
            rows = file.rows(reading)
            texts = reading.documents(rows, rows.name)
            to_keep = TOKENISED_BYTES * turn // len(chosen)
            size, documents, share = self.measure(texts, limit // len(chosen), to_keep, rows)
            to_whole = 1.0 if share is None else 1 / (min(share, 1.0) or 1.0)
            self.bytes += size * to_whole
            self.documents += documents * to_whole
            self.is_exact = self.is_exact and share is None
        scale = sum(f.bytes for f in files) / max(sum(f.bytes for f in chosen), 1)
        self.bytes, self.documents = self.bytes * scale, self.documents * scale
        self.is_exact = self.is_exact and len(chosen) == len(files)

    def measure(
        self,
        texts: Iterator[str],
        limit: float,
        to_keep: int = TOKENISED_BYTES,
        file: RowFile | None = None,
    ) -> tuple[int, int, float | None]:
        """Read `limit` bytes of text, then on to the end of a compressed block.

        Returns:
            Bytes, documents, and their share of the file; None: all of it.
        """
        size, documents, share = 0, 0, 0.0
        for text in texts:
            before, share = share, 0.0 if file is None else file.share()
            if size >= limit and (share > before or size >= limit + _BLOCK):
                return size, documents, before
            content = text.encode()
            size, documents = size + len(content), documents + 1
            sampled = content[: max(to_keep - self.kept, 0)]
            if sampled:
                self.kept += len(sampled)
                self.texts.append(sampled.decode(errors="ignore"))
        return size, documents, None


def count_domains(config: CorpusConfig, say: Say = silent) -> list[DomainCount]:
    """Return the size of each training domain, in order."""
    is_text = not all(source.is_tokens for source in config.sources.values())
    is_here = is_text and not bpe_vocabulary(config.tokenizer)
    tokenizer = open_tokenizer(config.tokenizer) if is_here else None
    is_bytes, counts = plain_name(config.tokenizer) == BYTES, []
    for name, source in config.sources.items():
        if not source.has_text:
            raise CorpusError(f"domain {name!r}: its text is not available here; state its tokens")
        rooted = source.under(config.root)
        if source.is_tokens:
            files, tokens = counted_tokens(name, rooted.model_copy(update={"max_tokens": None}))
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
    return {c.name: {"bytes": c.bytes} if c.tokens is None else c.tokens for c in counts}


def _count(
    name: str, source: SourceConfig, tokenizer: Tokenizer | None, is_bytes: bool
) -> DomainCount:
    sample, reading, files = _Sample(), ReaderContext(name, source, "skip"), 0
    if source.environment is not None:
        texts = (text for text, _ in environment_documents(source.environment))
        sample.bytes, sample.documents, _ = sample.measure(texts, float("inf"))
    elif is_local(source):
        paths = text_files(name, source)
        files = len(paths)
        sample.add_files(paths, reading, SAMPLE_BYTES)
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
        tokens = round(sample.bytes * len(tokenizer.encode(sample.texts)) / sample.kept)
    is_exact = sample.is_exact and (is_bytes or tokens is None)
    return DomainCount(name, files, round(sample.bytes), tokens, how, is_exact)
