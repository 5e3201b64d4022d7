"""Write a first experiment YAML for files and folders of text: `mixopt init`.

Each subfolder is a domain, and so are files that share a name. Files and folders named after a
split (`train.parquet`, `validation/`) belong to the domain around them, as its text or held-out
text. Files about the data, such as a README or a licence, are left out.
"""

import glob
import itertools
import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from mixopt.config import CorpusConfig, DomainConfig
from mixopt.corpus import FirstRows, builder_of, count_domains, first_rows
from mixopt.errors import ConfigError, CorpusError, is_control
from mixopt.reporting import table_text
from mixopt.system import Say, bytes_text, short_count, silent, write_new

TOKEN_BYTES = 4  # estimate of bytes per token before a tokenizer is trained
BPE_FROM = 5_000_000  # bytes of text that make a BPE worth training
MIN_TRIALS, MAX_TRIALS = 12, 64
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./*-]*")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
TEXT_NAMES = ("text", "content", "body", "document", "raw_content", "code", "article", "markdown")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
TARGET_NAMES = frozenset(
    name
    for name in ("target", "targets", "heldout", "held_out", "held-out", "exams", *SPLITS)
    if SPLITS.get(name) != "train"
)
MAX_FILES_READ = 16  # in a domain
MIN_LENGTH = 16  # mean characters of a text column whose name is not in TEXT_NAMES
MAX_LISTED = 20  # globs of a domain; beyond it, files are listed
_SPLIT_WORD = re.compile(rf"(^|[-_. ])({'|'.join(SPLITS)})(?=$|[-_. ])", re.IGNORECASE)
_ABOUT = re.compile(
    r"(readme|licen[cs]es?|copying|notices?|changelog|citation|dataset_infos?)([-_.].*)?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FoundDomain:
    """The files of a domain or a target, and the bytes of their text once counted."""

    name: str
    files: tuple[Path, ...]
    paths: tuple[str, ...]
    column: str
    broken: int = 0
    validation: tuple[str, ...] = ()
    bytes: int = 0
    is_target: bool = False
    token_bytes: int = 1

    @property
    def formats(self) -> str:
        """Suffixes of its files, such as `.jsonl.gz`."""
        return ", ".join(dict.fromkeys(_suffix(file) for file in self.files))

    @property
    def tokens(self) -> int:
        """Estimated number of tokens."""
        return round(self.bytes / self.token_bytes)

    @property
    def fields(self) -> dict[str, Any]:
        """The domain's fields in the YAML."""
        given = {"path": list(self.paths), "validation": list(self.validation)}
        fields: dict[str, Any] = {
            name: paths if len(paths) > 1 else paths[0] for name, paths in given.items() if paths
        }
        return fields if self.column == "text" else {**fields, "column": self.column}

    def to_json(self) -> dict[str, Any]:
        """Return the domain as JSON values."""
        return {
            "name": self.name,
            "path": list(self.paths),
            "files": len(self.files),
            "format": self.formats,
            "column": self.column,
            "bytes": self.bytes,
            "is_target": self.is_target,
            "token_bytes": self.token_bytes,
            "validation": list(self.validation),
            "estimated_tokens": self.tokens,
        }


@dataclass(frozen=True)
class FirstExperiment:
    """The written file, and the domains found for it."""

    file: Path
    sources: tuple[FoundDomain, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        sources = [source.to_json() for source in self.sources]
        return {"file": str(self.file), "domains": sources, "left_out": list(self.left_out)}


def start_experiment(paths: Sequence[str | Path], out: Path, say: Say = silent) -> FirstExperiment:
    """Find domains in files and folders, and write an experiment for them."""
    exists = f"init: {out} already exists and is not overwritten; choose another --out"
    if out.exists():
        raise ConfigError(exists)
    domains, left_out = find_domains(paths)
    for line in left_out:
        say(f"left out: {line}")
    if len(domains) < 2:
        count = f"1 domain ({domains[0].name})" if domains else "no text"
        raise ConfigError(
            f"init: {count} found in {' '.join(map(str, paths))}; a mixture needs two domains: give"
            " several files or folders, or a folder with a subfolder for each domain; rows that"
            " name their source are split by a domain's field by: [COLUMN]"
        )
    sources = _measured(domains)
    if not write_new(out, experiment_text(sources, paths, out).encode()):
        raise ConfigError(exists)
    return FirstExperiment(out, tuple(sources), tuple(left_out))


def _measured(domains: Sequence[FoundDomain]) -> list[FoundDomain]:
    """Count the text of domains; mark those named like targets if two others remain."""
    given = {domain.name: DomainConfig(**domain.fields) for domain in domains}
    counts = count_domains(CorpusConfig(domains=given, tokenizer="bytes"))
    named = [domain.name.lower() in TARGET_NAMES for domain in domains]
    targets = named if named.count(False) >= 2 else [False] * len(named)
    total = sum(one.bytes for one, is_target in zip(counts, targets, strict=True) if not is_target)
    each = 1 if _tokenizer(total) == "bytes" else TOKEN_BYTES
    return [
        replace(domain, bytes=one.bytes, is_target=is_target, token_bytes=each)
        for domain, one, is_target in zip(domains, counts, targets, strict=True)
    ]


def found_text(experiment: FirstExperiment) -> str:
    """Return the domains as a table for the terminal."""
    rows = [
        (
            source.name,
            "target" if source.is_target else "domain",
            str(len(source.files)),
            source.formats,
            source.column,
            bytes_text(source.bytes),
            short_count(source.tokens),
        )
        for source in experiment.sources
    ]
    columns = ("name", "role", "files", "format", "column", "text", "tokens")
    each = experiment.sources[0].token_bytes
    size = "1 token = 1 byte" if each == 1 else f"tokens are estimated at {each} bytes each"
    return table_text(f"Found; {size}", columns, rows, texts=("role", "format", "column"))


def experiment_text(sources: Sequence[FoundDomain], paths: Sequence[str | Path], out: Path) -> str:
    """Return the YAML of an experiment, with comments."""
    domains = [source for source in sources if not source.is_target]
    targets = [source for source in sources if source.is_target]
    total = sum(source.bytes for source in domains)
    trials = min(MAX_TRIALS, max(MIN_TRIALS, 3 * len(domains)))
    quoted = shlex.quote(str(out))
    skip = any(source.broken for source in sources)
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
        *_about_targets(domains, targets),
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


def _about_targets(domains: Sequence[FoundDomain], targets: Sequence[FoundDomain]) -> list[str]:
    lines = ["evaluation:  # targets: evaluated, never trained on", *map(_source_line, targets)]
    if not targets:
        lines = [
            "# A target is evaluated and never trained on. Name the one that you care about,",
            "# and set",
            "# objective: {target: exams}",
            "# evaluation:",
            "#   exams: {path: data/exams.jsonl}",
        ]
    if len(targets) == 1:
        return [*lines, "objective:", f"  target: {_scalar(targets[0].name)}"]
    return [
        *lines,
        "objective:   # what is minimised: the mean of these losses, with these weights",
        "  mean:",
        *(f"    {_scalar(source.name)}: 1" for source in targets or domains),
    ]


def _source_line(source: FoundDomain) -> str:
    fields = source.fields
    about, indent = "", "  "
    if not source.is_target:
        fields = {**fields, "bytes": source.bytes}
        about, indent = f"  # about {short_count(source.tokens)} tokens", "    "
    shown = ", ".join(f"{name}: {_value(value)}" for name, value in fields.items())
    return f"{indent}{_scalar(source.name)}: {{{shown}}}{about}"


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    return _scalar(value) if isinstance(value, str) else str(value)


def _scalar(text: str) -> str:
    """Write text as a YAML scalar, quoted where necessary."""
    is_plain = PLAIN.fullmatch(text) is not None and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _tokenizer(total: int) -> str:
    return "bpe:8192" if total >= BPE_FROM and find_spec("tokenizers") else "bytes"


def _proxy() -> str:
    if find_spec("torch"):
        return "decoder    # or ngram: less accurate, but takes seconds"
    return "ngram      # decoder needs torch: pip install 'mixopt[all]'"


def find_domains(paths: Sequence[str | Path]) -> tuple[list[FoundDomain], list[str]]:
    """Find the domains of files and folders; also return what is left out, and why."""
    places = [Path(path) for path in paths]
    _check_apart(places)
    domains: list[FoundDomain] = []
    left_out: list[str] = []
    for name, splits in _grouped(places, left_out).items():
        held_out = splits.get("validation") or splits.get("test", [])
        left_out += [
            f"{file}: a test split; name it under evaluation to use it"
            for file in splits.get("test", [])
            if file not in held_out
        ]
        domain = _domain(name, splits["train"], held_out, left_out)
        if domain is not None:
            taken = {one.name for one in domains}
            numbered = (f"{domain.name}_{number}" for number in itertools.count(2))
            own = next(one for one in itertools.chain([domain.name], numbered) if one not in taken)
            domains.append(replace(domain, name=own))
    return domains, left_out


def _domain(
    name: str, files: Sequence[Path], held_out: Sequence[Path], left_out: list[str]
) -> FoundDomain | None:
    """Return a domain of the files that have its text column; None if there are none."""
    known = _readable(name, files, left_out)
    step = max(1, len(known) / MAX_FILES_READ)
    seen = [known[int(k * step)] for k in range(min(MAX_FILES_READ, len(known)))]
    first = {file: _look(file, left_out) for file in seen}
    columns = Counter(one for rows in first.values() if rows and (one := _text_column(rows)))
    column = next((one for one, _ in columns.most_common(1)), "")
    wrong = {file for file, rows in first.items() if not _has(column, file, rows, left_out)}
    used = tuple(file for file in known if file not in wrong)
    if not column or not used:
        return None
    held = [
        file
        for file in _readable(name, held_out, left_out)
        if _has(column, file, _look(file, left_out), left_out)
    ]
    broken = sum(rows.broken for file, rows in first.items() if rows and file not in wrong)
    clean = "".join("_" if is_control(c) or c in "/\\" else c for c in name).strip(". ")[:60]
    return FoundDomain(clean or "domain", used, _paths(used), column, broken, _paths(held))


def _readable(name: str, files: Sequence[Path], left_out: list[str]) -> list[Path]:
    """Return the files of a known format that are not empty."""
    known: list[Path] = []
    unknown: dict[str, list[Path]] = {}
    for file in files:
        if builder_of(file) is None:
            unknown.setdefault(file.suffix, []).append(file)
        elif file.stat().st_size:
            known.append(file)
        else:
            left_out.append(f"{file}: empty file")
    for suffix, some in unknown.items():
        who = str(some[0]) if len(some) == 1 else f"{name}: {len(some)} files"
        why = f"{suffix} is not a supported text format" if suffix else "no suffix names the format"
        left_out.append(f"{who}: {why}")
    return known


def _look(file: Path, left_out: list[str]) -> FirstRows | None:
    try:
        rows = first_rows(file, builder_of(file) or "")
    except CorpusError as error:
        left_out.append(f"{file}: {error}")
        return None
    if rows.rows:
        return rows
    left_out.append(f"{file}: {'no row can be read' if rows.broken else 'no documents'}")
    return None


def _has(column: str, file: Path, rows: FirstRows | None, left_out: list[str]) -> bool:
    """Return whether the first rows of a file have the text column; if not, note why."""
    if rows is None:
        return False
    own = _text_column(rows)
    if own is not None and column in rows.columns:
        return True
    what = "of text" if own is None else f"{column!r}, which the other files have"
    left_out.append(f"{file}: no column {what} (columns: {', '.join(rows.columns[:8])})")
    return False


def _text_column(rows: FirstRows) -> str | None:
    """Return the text column: by its name, else the one with the longest text."""
    texts = {name: rows.texts(name) for name in rows.columns}
    texts = {name: own for name, own in texts.items() if own and 2 * len(own) >= len(rows.rows)}
    named = next((name for name in TEXT_NAMES if name in texts), None)
    if named is not None:
        return named
    lengths = {
        name: sum(map(len, own)) / len(own)
        for name, own in texts.items()
        if any(" " in text for text in own)
    }
    longest = max(lengths, key=lambda name: lengths[name], default=None)
    return longest if longest is not None and lengths[longest] >= MIN_LENGTH else None


def _check_apart(places: Sequence[Path]) -> None:
    given: dict[Path, Path] = {}
    for place in sorted(places, key=lambda one: len(one.resolve().parts)):
        if not place.exists():
            raise ConfigError(f"init: {place}: no such file or folder")
        own = place.resolve()
        for folder in (own, *own.parents):
            if folder in given:
                raise ConfigError(
                    f"init: {place}: is in {given[folder]}, which is given too; give one of them"
                )
        given[own] = place


Splits = dict[str, list[Path]]


def _grouped(places: Sequence[Path], left_out: list[str]) -> dict[str, Splits]:
    """Return the files of each domain by split; every domain has the split `train`."""
    while len(places) == 1 and places[0].is_dir():
        folder, places = places[0], _visible(places[0])
        if not places:
            left_out.append(f"{folder}: no files")
    groups: dict[str, Splits] = {}
    owners: dict[str, dict[str, list[Path]]] = {}
    for place in places:
        before = len(left_out)
        files = _below(place, left_out)
        if not files and len(left_out) == before:
            left_out.append(f"{place}: no files")
        for file in files:
            domain, split, own_name = _split_of(place, file)
            groups.setdefault(domain, {}).setdefault(split, []).append(file)
            owners.setdefault(domain, {}).setdefault(own_name, []).append(file)
    by_group: dict[str, Splits] = {}
    for domain, splits in groups.items():
        # Held-out files without training files become targets.
        own = (
            {domain: splits}
            if "train" in splits
            else {name: {"train": files} for name, files in owners[domain].items()}
        )
        for name, parts in own.items():
            for split, files in parts.items():
                by_group.setdefault(name, {}).setdefault(split, []).extend(files)
    return by_group


def _split_of(place: Path, file: Path) -> tuple[str, str, str]:
    """Return domain and split of a file, and its name if it becomes a target."""
    own_name = _stem(file) if place == file else place.resolve().name
    folders = () if place == file else (own_name, *file.relative_to(place).parts[:-1])
    named = [folder for folder in folders if folder.lower() not in SPLITS]
    stem, parent = _stem(file), place.resolve().parent.name or "text"
    word = _SPLIT_WORD.search(stem)
    words = [*folders, *([word[2]] if word else [])]
    split = next((SPLITS[one.lower()] for one in words if one.lower() in SPLITS), "train")
    without = _SPLIT_WORD.sub("", stem).strip("-_. ")
    return named[0] if named else without or parent, split, own_name


def _visible(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"init: {folder}: {error.strerror or error}") from error
    return [path for path in entries if not path.name.startswith((".", "_"))]


def _below(place: Path, left_out: list[str]) -> list[Path]:
    """Return a file, or all files in a folder, except files about the data."""
    if _ABOUT.fullmatch(place.name):
        left_out.append(f"{place}: is about the data")
        return []
    if not place.is_dir():
        return [place]
    return [file for path in _visible(place) for file in _below(path, left_out)]


def _suffix(file: Path) -> str:
    """Return the suffix of a file, including its compression, such as `.jsonl.gz`."""
    is_compressed = file.suffix.lower() in COMPRESSIONS and builder_of(file) is not None
    return "".join(file.suffixes[-2:]) if is_compressed else file.suffix


def _stem(file: Path) -> str:
    """Return the common name of shards: `web` for `web-00001-of-00010.jsonl.gz`."""
    name = file.name.removesuffix(_suffix(file))
    return re.sub(r"[-_.]?\d+([-_.]?of[-_.]?\d+)?$", "", name) or name


def _paths(files: Sequence[Path]) -> tuple[str, ...]:
    """Return globs that match exactly these files, or else the files."""
    names = {file.as_posix() for file in files}
    for prefix in (lambda file: "", _stem):
        globs = dict.fromkeys(
            f"{glob.escape(f'{file.parent.as_posix()}/{prefix(file)}')}*"
            f"{glob.escape(_suffix(file))}"
            for file in files
        )
        matched = {Path(path).as_posix() for pattern in globs for path in glob.glob(pattern)}
        if len(files) > 1 and len(globs) <= MAX_LISTED and matched == names:
            return tuple(globs)
    return tuple(glob.escape(name) for name in sorted(names))
