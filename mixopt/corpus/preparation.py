"""Prepare a corpus: read, deduplicate, split, tokenize, mix, write.

Every domain is read once, deduplicated by content over both of its splits, and spooled to disk.
When all held-out text is known, training documents that equal a held-out document of any domain
or target are dropped, and the rest is tokenized. `index.json` is written last: it marks a complete
corpus.
"""

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np

from mixopt.config import CorpusConfig, MixedConfig, Sources, TasksConfig, unusable_names
from mixopt.corpus.corpus import Corpus, corpus_files
from mixopt.corpus.domain_text import DomainText, read_texts, write_texts
from mixopt.corpus.domain_tokens import DomainTokens, keep_apart, read_tokens
from mixopt.corpus.environment import environment_versions
from mixopt.corpus.index_files import (
    CORPUS_FORMAT,
    INDEX,
    TASK_FOLDER,
    TOKENIZER_FILES,
    corpus_records,
)
from mixopt.corpus.spooled_documents import Spooled
from mixopt.corpus.tasks import task_file, write_tasks
from mixopt.corpus.token_import import token_pieces
from mixopt.corpus.token_shards import TokenShards, TokenWriter, write_elsewhere
from mixopt.corpus.tokenizer import (
    FastTokenizer,
    Tokenizer,
    TokenText,
    bpe_vocabulary,
    known_tokenizer,
    open_tokenizer,
    plain_name,
)
from mixopt.errors import ConfigError, CorpusError
from mixopt.system import (
    AnyArray,
    PlainDict,
    Say,
    dotted,
    is_url,
    local_path,
    silent,
    steady_progress,
    usable_cores,
    write_sealed,
    writing,
)

BPE_BYTES = 20_000_000  # of text, on which a BPE is trained
_READ_TOKENS = 1 << 20  # read at once
_BLOCK_TOKENS = 1024  # of a piece in text without documents


def prepare_corpus(
    config: CorpusConfig,
    evaluation: Sources,
    path: str | Path,
    *,
    tasks: TasksConfig | None = None,
    fingerprint: str,
    seed: int = 0,
    min_tokens: int = 1,
    workers: int | None = None,
    progress: Say = silent,
) -> Corpus:
    """Read, deduplicate, split and tokenize all domains and targets, and write their shards."""
    for place, fault in unusable_names(config, evaluation):
        raise CorpusError(f"{dotted(place)}: {fault}")
    path = Path(path)
    config = config.model_copy(update={"tokenizer": plain_name(config.tokenizer)})
    spools = _clear(path)
    workers = workers or usable_cores()
    if config.prepared is not None:
        return _take_prepared(config, evaluation, tasks, path, progress)
    complete = config
    config = config.model_copy(update={"domains": config.sources})
    try:
        texts = read_texts(_texts(config, evaluation, spools, seed), workers, progress)
        held_out = set[bytes]()
        for text in texts:
            held_out.update(text.validation.digests())
        for text in texts:
            text.drop_equal_to(held_out)
        tokenizer = _tokenizer(config, texts, tasks, progress)
        tokens = read_tokens(config, evaluation, tokenizer, seed, progress)
        keep_apart(texts, tokens, tokenizer)
        names = []
        if tokenizer is not None:
            tokenizer.save(path)
            for text, written in write_texts(texts, tokenizer, path, config.tokenizer, workers):
                _say_written(text, written, min_tokens, progress)
            names = write_tasks(tasks, tokenizer, path, progress)
        for domain in tokens:
            _say_written(domain, domain.write(path / domain.name), min_tokens, progress)
        _write_absent(config, evaluation, path)
        mixed = _write_mixed(complete, path, tokenizer, progress)
    finally:
        shutil.rmtree(spools, ignore_errors=True)
    if tokenizer is None:
        vocab_size = max(domain.vocab_size for domain in tokens)
    else:
        vocab_size = tokenizer.vocab_size
    domains = list(complete.domains)
    targets = [*evaluation, *complete.parts]
    provenance = _provenance(config, evaluation, [*texts, *tokens], seed)
    if mixed:
        provenance["mixed"] = mixed
    index = {
        "format": CORPUS_FORMAT,
        "tokenizer": config.tokenizer,
        "vocab_size": vocab_size,
        "domains": domains,
        "targets": targets,
        "tasks": names,
        "fingerprint": fingerprint,
        "provenance": provenance,
        "files": corpus_records(path, domains + targets, map(task_file, names)),
    }
    write_sealed(path / INDEX, index)
    return Corpus.open(path, verify=False)


def _write_mixed(
    config: CorpusConfig, path: Path, tokenizer: Tokenizer | None, progress: Say
) -> PlainDict:
    """Write the mixed domains and delete the training shards of their parts."""
    written = {}
    for name, mixed in config.mixed.items():
        parts = _mix(name, mixed, path, tokenizer, config.tokenizer)
        for part in mixed.domains:
            shutil.rmtree(path / part / "train")
        shares = ", ".join(f"{100 * share:.3g}% {part}" for part, share in parts["shares"].items())
        progress(f"{name}: {sum(parts['tokens'].values()):,} training tokens, {shares}")
        written[name] = parts
    return written


def _clear(path: Path) -> Path:
    """Delete the index and the leftovers of an interrupted run; return the spool folder."""
    files = [path / name for name in (INDEX, *TOKENIZER_FILES, ".text", TASK_FOLDER)]
    with writing(path):
        for file in (*files, *path.rglob(".*.tmp")):
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file, ignore_errors=True)
            else:
                file.unlink(missing_ok=True)
    return path / ".text"


def _texts(config: CorpusConfig, evaluation: Sources, spools: Path, seed: int) -> list[DomainText]:
    texts = []
    for name, source in {**config.domains, **evaluation}.items():
        if source.has_text and not source.is_tokens:
            rooted = source.under(config.root)
            is_target = name in evaluation
            texts.append(DomainText(name, rooted, config, spools / name, seed, is_target=is_target))
    return texts


def _tokenizer(
    config: CorpusConfig, texts: list[DomainText], tasks: TasksConfig | None, progress: Say
) -> Tokenizer | None:
    """Return the corpus's tokenizer; None if all domains are tokenised and it is not here."""
    vocab_size = bpe_vocabulary(config.tokenizer)
    tokenised = [name for name, source in config.domains.items() if source.is_tokens]
    if vocab_size is None:
        is_needed = bool(texts) or tasks is not None or not tokenised
        return open_tokenizer(config.tokenizer) if is_needed else known_tokenizer(config.tokenizer)
    if tokenised:
        raise CorpusError(
            f"corpus.tokenizer: the run would train {config.tokenizer}, but {tokenised[0]!r} is"
            " already tokenised: name its tokenizer, or a folder with its tokenizer.json"
        )
    documents = chain.from_iterable(text.training() for text in texts)
    if next(documents, None) is None:
        raise CorpusError(
            f"corpus.tokenizer: {config.tokenizer}: no domain has text here to train it on; use "
            "bytes, or a tokenizer's name or folder"
        )
    share = BPE_BYTES // len(config.domains)
    sample = chain.from_iterable(_first(text.training(), share) for text in texts)
    with steady_progress(f"training the tokenizer {config.tokenizer}"):
        tokenizer = FastTokenizer.train(sample, vocab_size)
    progress(f"tokenizer {config.tokenizer}: {tokenizer.vocab_size} ids")
    return tokenizer


def _first(documents: Iterator[Spooled], size: int) -> Iterator[str]:
    """Yield the documents of the first `size` bytes."""
    for document in documents:
        if size <= 0:
            return
        yield document.content[:size].decode("utf-8", errors="ignore")
        size -= len(document.content)


def _say_written(
    domain: DomainText | DomainTokens, written: Mapping[str, int], min_tokens: int, progress: Say
) -> None:
    """Check that each split has enough tokens, and report its size."""
    dropped = domain.equal_to_evaluation
    reason = f" ({dropped} documents dropped that are held out elsewhere)" if dropped else ""
    for split, tokens in written.items():
        if tokens < min_tokens:
            hint = "add text, or leave the domain out"
            if split == "held-out" and not domain.is_target:
                hint = "raise corpus.validation_fraction, or name files as 'validation'"
            raise CorpusError(
                f"domain {domain.name!r}: {tokens:,} {split} tokens{reason}, fewer than one"
                f" sequence of {min_tokens:,}; {hint}"
            )
    counts = ", ".join(f"{tokens:,} {split} tokens" for split, tokens in written.items())
    progress(f"{domain.name}: {counts}")


def _write_absent(config: CorpusConfig, evaluation: Sources, path: Path) -> None:
    """Write indices with names and sizes of domains and targets whose text is not here."""
    for name, source in {**config.domains, **evaluation}.items():
        if not source.has_text:
            if name in config.domains:
                write_elsewhere(path / name / "train", source.tokens or 0, config.tokenizer)
            write_elsewhere(path / name / "validation", 0, config.tokenizer)


def _provenance(
    config: CorpusConfig, evaluation: Sources, texts: list[DomainText | DomainTokens], seed: int
) -> PlainDict:
    sources = {**config.domains, **evaluation}
    counts = {text.name: text.counts for text in texts}
    sizes = {"tokens", "bytes"}  # stated sizes of the whole domain; do not affect this corpus
    read: PlainDict = {}
    for name, source in sources.items():
        if name in counts:
            fields = source.model_dump(exclude_defaults=True, exclude=sizes)
            read[name] = {**fields, "read": counts[name]}
    provenance: PlainDict = {"mixopt": version("mixopt"), "seed": seed, "sources": read}
    if any(source.environment is not None for source in sources.values()):
        provenance["environment"] = environment_versions()
    return provenance


def _take_prepared(
    config: CorpusConfig, evaluation: Sources, tasks: TasksConfig | None, path: Path, say: Say
) -> Corpus:
    """Link or copy the files of the corpus named by `prepared` into a run."""
    assert config.prepared is not None
    where = config.prepared
    corpus = Corpus.open(where if is_url(where) else local_path(where))

    def check(field: str, configured: Iterable[str], prepared: Sequence[str]) -> None:
        names = list(configured)
        if names != list(prepared):
            order = ", in this order" if len(prepared) > 1 else ""
            raise ConfigError(
                f"{field}: {', '.join(names) or 'none'}, but {where} was prepared with"
                f" {', '.join(prepared) or 'none'}{order}; use the same, or prepare the text"
            )

    check("corpus.domains", config.domains, corpus.domain_names)
    check("evaluation", evaluation, [target.name for target in corpus.targets])
    check("tasks", tasks.columns() if tasks else (), corpus.task_columns)
    check("corpus.tokenizer", [config.tokenizer], [corpus.tokenizer])
    with writing(path):
        for file in corpus_files(corpus.path):
            target = path / file.relative_to(corpus.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(file.resolve(), target)
            except OSError:  # another disk, or no links on this file system
                shutil.copyfile(file, target)
    tokens = sum(corpus.inventory.values())
    say(f"{where}: {len(corpus.domains)} domains, {tokens:,} training tokens")
    return Corpus.open(path, verify=False)


def _mix(
    name: str, mixed: MixedConfig, corpus: Path, tokenizer: Tokenizer | None, tokenizer_name: str
) -> PlainDict:
    """Write the shards of a mixed domain from those of its parts; return its amounts of each."""
    train = [TokenShards.open(corpus / part / "train", verify=False) for part in mixed.domains]
    held_out = [
        TokenShards.open(corpus / part / "validation", verify=False) for part in mixed.domains
    ]
    shares = _shares(mixed, train)
    default_end = None if tokenizer is None else tokenizer.end_of_document
    stated = [source.document_end for source in mixed.domains.values()]
    ends = [default_end if end is None else end for end in stated]
    texts = [TokenText(tokenizer, end) for end in stated]

    def write(split: str, parts: list[TokenShards], tokens: int) -> list[int]:
        """Write pieces of the part furthest behind its share; return the tokens of each part."""
        counts = [0] * len(parts)
        pieces = [_pieces(part, end) for part, end in zip(parts, ends, strict=True)]
        dtype = np.result_type(*(part.dtype for part in parts))
        with TokenWriter(corpus / name / split, dtype=dtype, tokenizer=tokenizer_name) as writer:
            while (total := sum(counts)) < tokens:
                deficits = [s * (total + 1) - n for s, n in zip(shares, counts, strict=True)]
                k = deficits.index(max(deficits))
                piece, documents = next(pieces[k])
                if total and total + len(piece) / 2 > tokens:
                    break
                writer.write(piece, documents=documents, bytes=texts[k].bytes(piece))
                counts[k] += len(piece)
        return counts

    train_tokens = _training_tokens(name, mixed, shares, train)
    write("validation", held_out, _tokens_without_repeats(shares, held_out))
    train_counts = write("train", train, train_tokens)
    total = sum(train_counts)
    amounts: PlainDict = {"tokens": {}, "epochs": {}, "shares": {}, "whole": {}}
    for part, count, shards in zip(mixed.domains, train_counts, train, strict=True):
        amounts["tokens"][part] = count
        amounts["epochs"][part] = count / shards.tokens
        amounts["shares"][part] = count / total
        amounts["whole"][part] = {"tokens": shards.tokens, "documents": shards.documents}
    return amounts


def _shares(mixed: MixedConfig, parts: Sequence[TokenShards]) -> list[float]:
    """Return the share of each part: as configured, or in proportion to its tokens."""
    if mixed.shares is not None:
        return list(mixed.shares.values())
    stated = [source.tokens or 0 for source in mixed.domains.values()]
    sizes = stated if all(stated) else [part.tokens for part in parts]
    return [size / sum(sizes) for size in sizes]


def _tokens_without_repeats(shares: Sequence[float], parts: Sequence[TokenShards]) -> int:
    """Return the most tokens with these shares that repeat no part."""
    pairs = zip(shares, parts, strict=True)
    return math.floor(min(part.tokens / share for share, part in pairs if share > 0))


def _training_tokens(
    name: str, mixed: MixedConfig, shares: Sequence[float], parts: Sequence[TokenShards]
) -> int:
    """Return the number of training tokens to write."""
    if mixed.tokens is None:
        return _tokens_without_repeats(shares, parts)
    for part, share, shards in zip(mixed.domains, shares, parts, strict=True):
        epochs = share * mixed.tokens / shards.tokens
        if epochs > mixed.max_epochs * (1 + 1e-9):
            max_tokens = math.floor(mixed.max_epochs * shards.tokens / share)
            raise CorpusError(
                f"domain {name!r}: a share of {share:.4g} of {part!r} in {mixed.tokens:,} tokens"
                f" takes {epochs:.3g} epochs of its {shards.tokens:,} tokens, and mixed.max_epochs"
                f" is {mixed.max_epochs:g}: lower mixed.tokens to {max_tokens:,}, or allow"
                f" max_epochs: {math.ceil(epochs)}"
            )
    return mixed.tokens


def _pieces(part: TokenShards, end: int | None) -> Iterator[tuple[AnyArray, int]]:
    """Yield a part's documents or blocks in an endless cycle, and the documents in each."""
    if not part.documents or end not in part.read(0, min(_READ_TOKENS, part.tokens)):
        end = None  # pieces would be too long
    while True:
        starts = range(0, part.tokens, _READ_TOKENS)
        blocks = (part.read(start, min(start + _READ_TOKENS, part.tokens)) for start in starts)
        for piece in token_pieces(blocks, end, block=_BLOCK_TOKENS):
            yield piece, int(piece[-1] == end)
