"""Write the first YAML file of an experiment from what files and folders hold: `mixopt init`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from mixopt.config import CorpusConfig, SourceConfig
from mixopt.corpus import count_domains
from mixopt.errors import ConfigError
from mixopt.pipeline.found_domains import (
    FoundDomain,
    SplitSource,
    find_domains,
    source_column,
    split_by_column,
)
from mixopt.reporting import table_text
from mixopt.system import Say, bytes_text, short_count, silent, write_new

TOKEN_BYTES = 4  # of text, about, where no tokenizer has been trained yet
BPE_FROM = 5_000_000  # bytes of text from which on a BPE is worth training
MIN_TRIALS, MAX_TRIALS = 12, 64
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./*-]*")


@dataclass(frozen=True)
class FoundSource:
    """A domain or a target of the new experiment."""

    name: str
    path: tuple[str, ...]
    files: int
    format: str
    column: str
    bytes: int
    is_target: bool
    token_bytes: int = TOKEN_BYTES
    validation: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """About how many tokens it has."""
        return round(self.bytes / self.token_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        lists = {"path": list(self.path), "validation": list(self.validation)}
        return {**vars(self), **lists, "estimated_tokens": self.tokens}


@dataclass(frozen=True)
class FirstExperiment:
    """What was found and written."""

    file: Path
    sources: tuple[FoundSource, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        sources = [source.to_json() for source in self.sources]
        lines = {"left_out": list(self.left_out), "notes": list(self.notes)}
        return {"file": str(self.file), "domains": sources, **lines}


def start_experiment(paths: Sequence[str | Path], out: Path, say: Say = silent) -> FirstExperiment:
    """Find the domains in files and folders, and write an experiment on them."""
    if out.exists():
        raise ConfigError(
            f"init: {out} already exists and is not overwritten; choose another --out"
        )
    found = find_domains(paths)
    for line in found.left_out:
        say(f"left out: {line}")
    notes: list[str] = []
    sources = _measured(found.domains)
    if len(sources) == 1:
        sources = _split(found.domains[0], out, notes)
    sources = _with_token_sizes(_with_domains(sources, paths))
    has_broken = any(domain.broken for domain in found.domains)
    if has_broken:
        notes.append("some rows cannot be read; on_bad_document: skip leaves them out")
    text = experiment_text(sources, paths, out, skip=has_broken)
    if not write_new(out, text.encode()):
        raise ConfigError(f"init: {out} already exists and is not overwritten")
    return FirstExperiment(out, tuple(sources), tuple(found.left_out), tuple(notes))


def found_text(found: FirstExperiment) -> str:
    """Return the table of what was found, for a terminal."""
    rows = [
        (
            source.name,
            "target" if source.is_target else "domain",
            str(source.files),
            source.format,
            source.column,
            bytes_text(source.bytes),
            short_count(source.tokens),
        )
        for source in found.sources
    ]
    columns = ("name", "role", "files", "format", "column", "text", "tokens")
    each = found.sources[0].token_bytes
    size = "1 token = 1 byte" if each == 1 else f"tokens are estimated at {each} bytes each"
    return table_text(f"Found; {size}", columns, rows, texts=("role", "format", "column"))


def _with_token_sizes(sources: list[FoundSource]) -> list[FoundSource]:
    """Return sources that know how long a token of the chosen tokenizer is."""
    each = 1 if _tokenizer(_trained_on(sources)) == "bytes" else TOKEN_BYTES
    return [replace(source, token_bytes=each) for source in sources]


def _trained_on(sources: Sequence[FoundSource]) -> int:
    """Return the bytes of text of all domains."""
    return sum(source.bytes for source in sources if not source.is_target)


def _measured(domains: Sequence[FoundDomain]) -> list[FoundSource]:
    """Return the domains with the bytes of their text."""
    if not domains:
        return []
    given = {
        domain.name: SourceConfig(path=list(domain.paths), column=domain.column)
        for domain in domains
    }
    counts = count_domains(CorpusConfig(domains=given, tokenizer="bytes"))
    return [
        FoundSource(
            domain.name,
            domain.paths,
            len(domain.files),
            domain.formats,
            domain.column,
            count.bytes,
            domain.is_target,
            validation=domain.validation,
        )
        for domain, count in zip(domains, counts, strict=True)
    ]


def _split(domain: FoundDomain, out: Path, notes: list[str]) -> list[FoundSource]:
    """Return a domain for each source that the rows of one domain name; else that domain."""
    column = source_column(domain)
    if column is None:
        return _measured([domain])
    folder = out.with_name(f"{out.stem}_domains")
    found = split_by_column(domain, column, folder)
    notes.append(f"split by the column {column!r} into {folder}")
    return [_of_split(name, one) for name, one in found.items()]


def _of_split(name: str, one: SplitSource) -> FoundSource:
    return FoundSource(
        name, (one.file.as_posix(),), 1, ".jsonl", "text", one.bytes, is_target=False
    )


def _with_domains(sources: Sequence[FoundSource], paths: Sequence[str | Path]) -> list[FoundSource]:
    """Check for two domains; where too few are left to train on, targets are domains."""
    if len(sources) < 2:
        count = f"1 domain ({sources[0].name})" if sources else "no text"
        raise ConfigError(
            f"init: {count} found in {' '.join(map(str, paths))}; a mixture needs two domains: give"
            " several files or folders, or a folder with a subfolder for each domain"
        )
    training = sum(not source.is_target for source in sources)
    if training >= 2:
        return list(sources)
    return [FoundSource(**{**vars(source), "is_target": False}) for source in sources]


def experiment_text(
    sources: Sequence[FoundSource], paths: Sequence[str | Path], out: Path, *, skip: bool
) -> str:
    """Return the YAML of an experiment, with comments."""
    domains = [source for source in sources if not source.is_target]
    targets = [source for source in sources if source.is_target]
    total = _trained_on(sources)
    trials = min(MAX_TRIALS, max(MIN_TRIALS, 3 * len(domains)))
    quoted = shlex.quote(str(out))
    lines = [
        "# How much of each domain should a model be trained on? Written by",
        f"#   mixopt {shlex.join(['init', *map(str, paths), '--out', str(out)])}",
        f"# Check it:  mixopt check {quoted}",
        f"# Run it:    mixopt run {quoted}      (interrupted, the same command resumes)",
        f"name: {_scalar(out.stem)}",
        "corpus:",
        f"  tokenizer: {_tokenizer(total):<11} # bytes, bpe:<vocab>, or a Hugging Face tokenizer",
        "  max_bytes: 20_000_000  # maximum text read per domain: a sample is enough",
    ]
    if skip:
        lines.append(
            "  on_bad_document: skip   # rows that cannot be read; error stops at the first"
        )
    lines += [
        "  # bytes: the text of the whole domain; where you know its tokens, write tokens: 25e9",
        "  domains:",
        *(_source_line(source, sized=True) for source in domains),
        *_evaluation(targets),
        *_objective(domains, targets),
        "design:",
        "  method: axial    # one mixture for each domain first, then random ones",
        f"  trials: {trials}       # mixtures to try; {MAX_TRIALS} or more for a real decision",
        "proxy:             # the small model that is trained on each mixture",
        f"  name: {_proxy()}",
        "  tokens: 500_000  # of each trial; more tokens separate mixtures better",
        "validate:",
        "  seeds: 3         # the proposal is trained against natural, uniform and others",
        "# The run that the mixture is for: no domain is repeated more often than this in it.",
        "# propose: {target_tokens: 25e9}",
        "# constraints: {max_epochs: 4}",
    ]
    return "\n".join(lines) + "\n"


def _evaluation(targets: Sequence[FoundSource]) -> list[str]:
    if targets:
        return [
            "evaluation:  # targets: evaluated, never trained on",
            *(_source_line(target, sized=False) for target in targets),
        ]
    return [
        "# A target is evaluated and never trained on. Name the one that you care about, and set",
        "# objective: {target: exams}",
        "# evaluation:",
        "#   exams: {path: data/exams.jsonl}",
    ]


def _objective(domains: Sequence[FoundSource], targets: Sequence[FoundSource]) -> list[str]:
    if len(targets) == 1:
        return ["objective:", f"  target: {_scalar(targets[0].name)}"]
    chosen = targets or domains
    return [
        "objective:   # what is minimised: the mean of these losses, with these weights",
        "  mean:",
        *(f"    {_scalar(source.name)}: 1" for source in chosen),
    ]


def _source_line(source: FoundSource, *, sized: bool) -> str:
    fields: dict[str, Any] = {"path": _one_or_list(source.path)}
    if source.validation:
        fields["validation"] = _one_or_list(source.validation)
    if source.column != "text":
        fields["column"] = source.column
    if sized:
        fields["bytes"] = source.bytes
    shown = ", ".join(f"{name}: {_value(value)}" for name, value in fields.items())
    about = f"  # about {short_count(source.tokens)} tokens" if sized else ""
    indent = "    " if sized else "  "
    return f"{indent}{_scalar(source.name)}: {{{shown}}}{about}"


def _one_or_list(paths: Sequence[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else list(paths)


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    return _scalar(value) if isinstance(value, str) else str(value)


def _scalar(text: str) -> str:
    """Write text as YAML reads it back: plain where that is safe, else quoted."""
    is_plain = PLAIN.fullmatch(text) is not None and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _tokenizer(total: int) -> str:
    return "bpe:8192" if total >= BPE_FROM and find_spec("tokenizers") else "bytes"


def _proxy() -> str:
    """Return the proxy that runs here."""
    if find_spec("torch"):
        return "decoder    # or ngram: less accurate, but takes seconds"
    return "ngram      # decoder needs torch: pip install 'mixopt[proxies]'"
