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

from mixopt.config import CorpusConfig, DomainConfig
from mixopt.corpus import count_domains
from mixopt.errors import ConfigError
from mixopt.pipeline.found_domains import FoundDomain, find_domains
from mixopt.reporting import table_text
from mixopt.system import Say, bytes_text, short_count, silent, write_new

TOKEN_BYTES = 4  # of text, about, where no tokenizer has been trained yet
BPE_FROM = 5_000_000  # bytes of text from which on a BPE is worth training
MIN_TRIALS, MAX_TRIALS = 12, 64
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./*-]*")


@dataclass(frozen=True)
class FoundSource:
    """A domain or a target of the new experiment, and the bytes of its text."""

    found: FoundDomain
    bytes: int
    is_target: bool
    token_bytes: int

    @property
    def name(self) -> str:
        """The name of the domain."""
        return self.found.name

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

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        sources = [source.to_json() for source in self.sources]
        return {"file": str(self.file), "domains": sources, "left_out": list(self.left_out)}


def start_experiment(paths: Sequence[str | Path], out: Path, say: Say = silent) -> FirstExperiment:
    """Find the domains in files and folders, and write an experiment on them."""
    if out.exists():
        raise ConfigError(
            f"init: {out} already exists and is not overwritten; choose another --out"
        )
    found = find_domains(paths)
    for line in found.left_out:
        say(f"left out: {line}")
    domains = found.domains
    if len(domains) < 2:
        count = f"1 domain ({domains[0].name})" if domains else "no text"
        raise ConfigError(
            f"init: {count} found in {' '.join(map(str, paths))}; a mixture needs two domains: give"
            " several files or folders, or a folder with a subfolder for each domain; rows that"
            " name their source are split by a domain's field by: [COLUMN]"
        )
    sources = _measured(domains)
    if not write_new(out, experiment_text(sources, paths, out).encode()):
        raise ConfigError(f"init: {out} already exists and is not overwritten")
    return FirstExperiment(out, tuple(sources), tuple(found.left_out))


def _measured(domains: Sequence[FoundDomain]) -> list[FoundSource]:
    """Return the domains with the bytes of their text; targets where enough others remain."""
    given = {domain.name: DomainConfig(**fields_of(domain)) for domain in domains}
    counts = count_domains(CorpusConfig(domains=given, tokenizer="bytes"))
    may_be = sum(not domain.is_target for domain in domains) >= 2
    sizes = [(domain, one.bytes) for domain, one in zip(domains, counts, strict=True)]
    total = sum(size for domain, size in sizes if not (may_be and domain.is_target))
    each = 1 if _tokenizer(total) == "bytes" else TOKEN_BYTES
    return [FoundSource(one, size, may_be and one.is_target, each) for one, size in sizes]


def fields_of(domain: FoundDomain) -> dict[str, Any]:
    """Return the fields of a domain as a file has them."""
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


def experiment_text(sources: Sequence[FoundSource], paths: Sequence[str | Path], out: Path) -> str:
    """Return the YAML of an experiment, with comments."""
    domains = [source for source in sources if not source.is_target]
    targets = [source for source in sources if source.is_target]
    total = sum(source.bytes for source in domains)
    trials = min(MAX_TRIALS, max(MIN_TRIALS, 3 * len(domains)))
    quoted = shlex.quote(str(out))
    skip = any(source.found.broken for source in sources)
    lines = [
        "# How much of each domain should a model be trained on? Written by",
        f"#   mixopt {shlex.join(['init', *map(str, paths), '--out', str(out)])}",
        f"# Check it:  mixopt check {quoted}",
        f"# Run it:    mixopt run {quoted}      (interrupted, the same command resumes)",
        f"name: {_scalar(out.stem)}",
        "corpus:",
        f"  tokenizer: {_tokenizer(total):<11} # bytes, bpe:<vocab>, or a Hugging Face tokenizer",
        "  max_bytes: 20_000_000  # maximum text read per domain: a sample is enough",
        *(["  on_bad_document: skip   # some rows cannot be read; error stops there"] * skip),
        "  # bytes: the text of the whole domain; where you know its tokens, write tokens: 25e9",
        "  domains:",
        *(_source_line(source) for source in domains),
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
        about = "evaluation:  # targets: evaluated, never trained on"
        return [about, *(_source_line(target) for target in targets)]
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


def _source_line(source: FoundSource) -> str:
    fields = fields_of(source.found)
    about, indent = "", "  "
    if not source.is_target:
        fields |= {"bytes": source.bytes}
        about, indent = f"  # about {short_count(source.tokens)} tokens", "    "
    shown = ", ".join(f"{name}: {_value(value)}" for name, value in fields.items())
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
    if find_spec("torch"):
        return "decoder    # or ngram: less accurate, but takes seconds"
    return "ngram      # decoder needs torch: pip install 'mixopt[all]'"
