"""Write the first YAML file of an experiment from what files and folders hold: `mixopt init`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mixopt.config import CorpusConfig, DomainConfig
from mixopt.corpus import count_domains
from mixopt.errors import ConfigError
from mixopt.pipeline.found_domains import (
    MAX_SOURCES,
    FoundDomain,
    find_domains,
    source_column,
)
from mixopt.reporting import table_text
from mixopt.system import Say, bytes_text, short_count, silent, write_new

TOKEN_BYTES = 4  # of text, about, where no tokenizer has been trained yet
BPE_FROM = 5_000_000  # bytes of text from which on a BPE is worth training
MIN_TRIALS, MAX_TRIALS = 12, 64
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./*-]*")


@dataclass(frozen=True)
class FoundSource:
    """A domain or a target of the new experiment, of the fields that its line has."""

    name: str
    found: FoundDomain
    fields: dict[str, Any]
    bytes: int
    is_target: bool
    token_bytes: int

    @property
    def tokens(self) -> int:
        """About how many tokens it has."""
        return round(self.bytes / self.token_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "name": self.name,
            "path": list(self.found.paths),
            "files": len(self.found.files),
            "format": self.found.formats,
            "column": self.found.column,
            "bytes": self.bytes,
            "is_target": self.is_target,
            "token_bytes": self.token_bytes,
            "validation": list(self.found.validation),
            "estimated_tokens": self.tokens,
        }


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
    sources = _measured(found.domains, notes)
    if len(sources) < 2:
        count = f"1 domain ({sources[0].name})" if sources else "no text"
        raise ConfigError(
            f"init: {count} found in {' '.join(map(str, paths))}; a mixture needs two domains: give"
            " several files or folders, or a folder with a subfolder for each domain"
        )
    has_broken = any(domain.broken for domain in found.domains)
    if has_broken:
        notes.append("some rows cannot be read; on_bad_document: skip leaves them out")
    text = experiment_text(sources, paths, out, skip=has_broken)
    if not write_new(out, text.encode()):
        raise ConfigError(f"init: {out} already exists and is not overwritten")
    return FirstExperiment(out, tuple(sources), tuple(found.left_out), tuple(notes))


def _measured(domains: Sequence[FoundDomain], notes: list[str]) -> list[FoundSource]:
    """Return the domains with the bytes of their text; of one alone the sources of its rows."""
    if not domains:
        return []
    by_name = {domain.name: domain for domain in domains}
    given = {name: _fields(domain) for name, domain in by_name.items()}
    column = source_column(domains[0]) if len(domains) == 1 else None
    cells = {} if column is None else _cells(domains[0], column)
    if cells:
        given = {n: {**_fields(domains[0]), "by": one.cell} for n, one in cells.items()}
        by_name = dict.fromkeys(cells, domains[0])
        notes.append(f"the column {column!r} names {len(cells)} domains")
    checked = {name: DomainConfig(**fields) for name, fields in given.items()}
    sizes = [one.bytes for one in count_domains(CorpusConfig(domains=checked, tokenizer="bytes"))]
    training = [one for one in domains if not one.is_target]
    targets = {one.name for one in domains if one.is_target and len(training) >= 2}
    total = sum(n for name, n in zip(given, sizes, strict=True) if name not in targets)
    each = 1 if _tokenizer(total) == "bytes" else TOKEN_BYTES
    return [
        FoundSource(name, by_name[name], given[name], size, name in targets, each)
        for name, size in zip(given, sizes, strict=True)
    ]


def _cells(domain: FoundDomain, column: str) -> dict[str, DomainConfig]:
    """Return a domain for each source that a column names; none where these are not to be used."""
    given = {domain.name: {**_fields(domain), "by": [column]}}
    try:
        found = CorpusConfig.model_validate({"domains": given}).domains
    except ValidationError:  # its files are not read by column, or a value is no name
        return {}
    return found if len(found) <= MAX_SOURCES else {}


def _fields(domain: FoundDomain) -> dict[str, Any]:
    fields: dict[str, Any] = {"path": _one_or_list(domain.paths)}
    if domain.validation:
        fields["validation"] = _one_or_list(domain.validation)
    if domain.column != "text":
        fields["column"] = domain.column
    return fields


def found_text(found: FirstExperiment) -> str:
    """Return the table of what was found, for a terminal."""
    rows = [
        (
            source.name,
            "target" if source.is_target else "domain",
            str(len(source.found.files)),
            source.found.formats,
            source.found.column,
            bytes_text(source.bytes),
            short_count(source.tokens),
        )
        for source in found.sources
    ]
    columns = ("name", "role", "files", "format", "column", "text", "tokens")
    each = found.sources[0].token_bytes
    size = "1 token = 1 byte" if each == 1 else f"tokens are estimated at {each} bytes each"
    return table_text(f"Found; {size}", columns, rows, texts=("role", "format", "column"))


def experiment_text(
    sources: Sequence[FoundSource], paths: Sequence[str | Path], out: Path, *, skip: bool
) -> str:
    """Return the YAML of an experiment, with comments."""
    domains = [source for source in sources if not source.is_target]
    targets = [source for source in sources if source.is_target]
    total = sum(source.bytes for source in domains)
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
    fields = source.fields | ({"bytes": source.bytes} if sized else {})
    shown = ", ".join(f"{name}: {_value(value)}" for name, value in fields.items())
    about = f"  # about {short_count(source.tokens)} tokens" if sized else ""
    indent = "    " if sized else "  "
    return f"{indent}{_scalar(source.name)}: {{{shown}}}{about}"


def _one_or_list(paths: Sequence[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else list(paths)


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(k)}: {_value(v)}" for k, v in value.items()) + "}"
    return _scalar(value) if isinstance(value, str) else str(value)


def _scalar(text: str) -> str:
    """Write text as YAML reads it back: plain where that is safe, else quoted."""
    is_plain = PLAIN.fullmatch(text) is not None and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _tokenizer(total: int) -> str:
    return "bpe:8192" if total >= BPE_FROM and find_spec("tokenizers") else "bytes"


def _proxy() -> str:
    if find_spec("torch"):
        return "decoder    # or ngram: less accurate, but takes seconds"
    return "ngram      # decoder needs torch: pip install 'mixopt[all]'"
