"""The directory of a pretraining run: files, configuration, verification, and text.

    config.yaml          the resolved configuration
    corpus/              token shards, if the run prepares its own
    tokenizer/           the tokenizer of its text
    checkpoints/         mixopt.pretraining.checkpoints
    mixture_log.jsonl    a line for each change of the mixture
    metrics.jsonl        losses, throughput
    experts/             counts of experts, if the model has any (mixopt.routing)

A run resumes only with its own configuration; before the first checkpoint it starts again. Fields
that change no result may differ: the distribution over devices, what is saved and recorded, and the
path of the same text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from mixopt.config import (
    WHERE,
    Config,
    Fault,
    Location,
    ObjectiveConfig,
    SourceConfig,
    absent_texts,
    dump_sections,
    is_recipe,
    read_sections,
    source_urls,
    unusable_names,
    url_faults,
)
from mixopt.corpus import Corpus, prepare_corpus, read_corpus_index, saved_tokenizer, vocabulary_of
from mixopt.errors import CorpusError, MixoptError, PluginError, RunError
from mixopt.pretraining.checkpoints import (
    CHECKPOINTS,
    check_checkpoint,
    found_checkpoints,
    last_checkpoint,
)
from mixopt.pretraining.config import PretrainConfig, VocabularyConfig
from mixopt.run_directory import CheckedPart, differences
from mixopt.system import (
    Say,
    check_sealed_text,
    checked_as,
    is_url,
    local_path,
    one_line,
    read_yaml,
    sealed_text,
    write_text,
)

HEADER = "The resolved configuration of this run; written by mixopt."
METRICS = "metrics.jsonl"
CORPUS = "corpus"
TOKENIZER = "tokenizer"
# Fields that change no result.
_FREE = (
    "name", "model.origin", "model.vocabulary", "corpus", "parallel", "device", "held_out.every",
    "checkpoint", "metrics", "experts", "tracking", "training.tokens", "training.micro_batch",
    "training.compile", "training.activation_checkpointing", "training.max_skipped",
)  # fmt: skip

_TEXT_SECTIONS = ("seed", "corpus", "evaluation")  # of an experiment, for preparing text


def check_directory(config: PretrainConfig, out: Path) -> None:
    """Check that a run in the directory, if any, can resume with this configuration."""
    if last_checkpoint(out / CHECKPOINTS) is not None:
        before = dump_sections(recorded_pretraining(out))
        for name, was, now in _decisive(before, config):
            raise RunError(
                f"{out}: the run was started with {name} {one_line(was)}, and here it is"
                f" {one_line(now)}; use another --out"
            )


def record_config(config: PretrainConfig, out: Path) -> None:
    """Write the configuration with which a run starts or resumes."""
    text = yaml.safe_dump(dump_sections(config), sort_keys=False, allow_unicode=True)
    write_text(out / "config.yaml", sealed_text(text, HEADER))


def recorded_pretraining(run: Path) -> PretrainConfig:
    """Return the recorded configuration of a run."""
    record = run / "config.yaml"
    check_sealed_text(record, HEADER, hint="restore it from a copy; it is needed to resume")
    content = read_yaml(record, error=RunError)
    return checked_as(PretrainConfig, content, str(record))


def run_fingerprint(config: PretrainConfig) -> str:
    """Return a hash of all fields that affect results."""
    return _digest([(name, value) for name, _, value in _decisive({}, config)])


def verify_pretraining(directory: Path) -> list[CheckedPart]:
    """Verify the recorded configuration and all checkpoints."""
    record = directory / "config.yaml"
    try:
        recorded_pretraining(directory)
        part = CheckedPart("configuration", "whole", 1, record.stat().st_size)
    except MixoptError as error:
        fault = {record.name: str(error).removeprefix(f"{record}: ")}
        part = CheckedPart("configuration", "damaged", 1, 0, fault, "see the message")
    checkpoints = found_checkpoints(directory / CHECKPOINTS)
    return [part] + [check_checkpoint(path) for path in checkpoints]


def prepare_text(config: PretrainConfig, out: Path, say: Say) -> None:
    """Prepare the run's own corpus if it is missing, or verify it."""
    folder = corpus_folder(config, out)
    has_begun = last_checkpoint(out / CHECKPOINTS) is not None
    if is_recipe(config.corpus) and not has_begun:
        example = "'corpus:'"
        text = read_sections(config.corpus, _TextConfig, example=example, faults=_text_faults)
        content = dump_sections(text)
        fingerprint = _digest({name: content.get(name) for name in _TEXT_SECTIONS})
        present_fingerprint = ""
        with suppress(CorpusError):  # missing or damaged
            present_fingerprint = read_corpus_index(folder, verify=False).text("fingerprint")
        if present_fingerprint != fingerprint:
            prepare_corpus(
                text.corpus,
                text.evaluation,
                folder,
                seed=text.seed,
                fingerprint=fingerprint,
                min_tokens=config.row_length,
                progress=lambda line: say(f"prepare: {line}"),
            )
            return
    Corpus.open(folder)


def corpus_folder(config: PretrainConfig, out: Path) -> Path:
    """Return the folder of a run's text, fetched to this node if it is in a store."""
    source = config.corpus
    if is_recipe(source):
        return out / CORPUS
    if is_url(source):
        return Corpus.open(source).path
    path = local_path(source)
    return path / CORPUS if (path / CORPUS).is_dir() else path


def open_text(config: PretrainConfig, out: Path) -> Corpus:
    """Open the verified text, and check that each domain has a row."""
    corpus = Corpus.open(corpus_folder(config, out), verify=False)
    row = config.row_length
    for domain in corpus.evaluation:
        if domain.train is not None:
            _check_row(domain.name, "training", domain.train.tokens, row)
        _check_row(domain.name, "held-out", domain.validation.tokens, row)
    return corpus


def _check_row(domain: str, kind: str, tokens: int, row: int) -> None:
    """Raise if a domain has fewer tokens than one row."""
    if tokens < row:
        raise CorpusError(
            f"domain {domain!r}: {tokens:,} {kind} tokens, and one row takes"
            f" {row:,}; lower training.sequence_length to {max(tokens - 1, 1):,}, or"
            " leave it out"
        )


def text_vocabulary(corpus: Path, keep: Path) -> VocabularyConfig:
    """Return the vocabulary of a corpus, and save its tokenizer to a folder."""
    index = read_corpus_index(corpus, verify=False)
    name = index.text("tokenizer")
    ids = index.whole("vocab_size")
    try:
        tokenizer = saved_tokenizer(corpus, name)
        _, sha256 = vocabulary_of(tokenizer)
    except (CorpusError, PluginError):  # imported tokens without their tokenizer
        return VocabularyConfig(tokenizer=name, ids=ids)
    keep.mkdir(parents=True, exist_ok=True)
    tokenizer.save(keep)
    return VocabularyConfig(tokenizer=name, ids=ids, sha256=sha256)


class _TextConfig(Config):
    """An experiment's sections for preparing text."""

    objective: ObjectiveConfig | None = None  # type: ignore[assignment]


def _text_faults(text: Config) -> Iterator[Fault]:
    if text.corpus.prepared is not None:
        message = f"is prepared already: give the run corpus: {text.corpus.prepared}"
        yield ("corpus", "prepared"), message
    sources: dict[Location, Mapping[str, SourceConfig]] = {
        ("corpus", "domains"): text.corpus.sources,
        ("evaluation",): text.evaluation,
    }
    yield from unusable_names(text.corpus, text.evaluation)
    for location in absent_texts(sources):
        yield location, WHERE
    yield from url_faults(source_urls(sources))


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _decisive(before: Mapping[str, Any], config: PretrainConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield the differences of fields that affect results."""
    for name, was, now in differences(before, dump_sections(config)):
        if not _is_free(name):
            yield name, was, now


def _is_free(name: str) -> bool:
    return any(name == field or name.startswith(f"{field}.") for field in _FREE)
