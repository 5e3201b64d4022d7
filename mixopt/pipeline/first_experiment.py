"""Write a first experiment YAML for files and folders of text: `mixopt init`.

Each subfolder is a domain, and so are files that share a name. Files and folders named after a
split (`train.parquet`, `validation/`) belong to the domain around them, as its text or held-out
text. Files about the data, such as a README or a licence, are left out.
"""

import glob
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from mixopt.config import CorpusConfig, DomainConfig
from mixopt.corpus import FirstRows, builder_of, count_domains, first_rows
from mixopt.errors import ConfigError, CorpusError
from mixopt.reporting import table_text
from mixopt.system import Say, bytes_text, first_few, name_fault, silent, write_text

MIN_TRIALS = 12
MAX_TRIALS = 64
BPE_FROM = 5_000_000  # bytes of text that make a BPE worth training
TEXT_NAMES = ("text", "content", "body", "document", "raw_content", "code", "article", "markdown")
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
MAX_FILES_READ = 16  # in a domain
MIN_LENGTH = 16  # mean characters of a text column whose name is not in TEXT_NAMES
MAX_LISTED = 20  # globs of a domain; beyond it, files are listed
ONE_LINE = math.inf  # characters of a line of YAML
Splits = dict[str, list[Path]]  # files by split
_SPLIT_WORD = re.compile(rf"(^|[-_. ])({'|'.join(SPLITS)})(?=$|[-_. ])", re.IGNORECASE)
_ABOUT = re.compile(
    r"(readme|licen[cs]es?|copying|notices?|changelog|citation|dataset_infos?)([-_.].*)?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FoundDomain:
    """A domain: its files with their suffixes, and the bytes of their text once counted."""

    name: str
    path: list[str]
    files: int
    format: str
    column: str
    validation: list[str]
    is_broken: bool  # some rows cannot be read
    bytes: int = 0

    @property
    def fields(self) -> dict[str, Any]:
        """The domain's fields in the YAML."""
        fields: dict[str, Any] = {"path": _one_or_list(self.path)}
        if self.validation:
            fields["validation"] = _one_or_list(self.validation)
        if self.column != "text":
            fields["column"] = self.column
        return fields

    @property
    def fields_with_size(self) -> dict[str, Any]:
        """The domain's fields in the YAML, with the bytes of its text."""
        return {**self.fields, "bytes": self.bytes}


def _one_or_list(paths: list[str]) -> str | list[str]:
    return paths if len(paths) > 1 else paths[0]


def start_experiment(
    paths: Sequence[str | Path], out: Path, say: Say = silent
) -> tuple[list[FoundDomain], list[str]]:
    """Write an experiment for files and folders; return its domains, and what is left out."""
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
    configs = {domain.name: DomainConfig(**domain.fields) for domain in domains}
    counts = count_domains(CorpusConfig(domains=configs, tokenizer="bytes"))
    sources = [
        replace(domain, bytes=count.bytes) for domain, count in zip(domains, counts, strict=True)
    ]
    text = experiment_text(sources, paths, out)
    if out.exists():  # since the files were measured
        raise ConfigError(exists)
    write_text(out, text)
    return sources, left_out


def domains_text(domains: Sequence[FoundDomain]) -> str:
    """Return the domains as a table for the terminal."""
    rows = [(d.name, str(d.files), d.format, d.column, bytes_text(d.bytes)) for d in domains]
    columns = ("name", "files", "format", "column", "text")
    return table_text("Domains", columns, rows, texts=("format", "column"))


def experiment_text(sources: Sequence[FoundDomain], paths: Sequence[str | Path], out: Path) -> str:
    """Return the YAML of an experiment, with comments."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", out.stem).lstrip("._-") or "mixopt"
    indent = "\n    "
    domains = [_yaml_entry(source.name, source.fields_with_size) for source in sources]
    weights = [_yaml_entry(source.name, 1) for source in sources]
    trials = min(MAX_TRIALS, max(MIN_TRIALS, 3 * len(sources)))
    skip = ""
    if any(source.is_broken for source in sources):
        skip = "  on_bad_document: skip   # some rows cannot be read; error stops there\n"
    return f"""\
# How much of each domain should a model be trained on? Written by
#   mixopt {shlex.join(["init", *map(str, paths), "--out", str(out)])}
# Check it:  mixopt check {shlex.quote(str(out))}
# Run it:    mixopt run {shlex.quote(str(out))}      (interrupted, the same command resumes)
name: {_yaml(name)}
corpus:
  tokenizer: {_tokenizer(sources):<11} # bytes, bpe:<vocab>, or a Hugging Face tokenizer
  max_bytes: 20_000_000  # maximum text read per domain: a sample is enough
{skip}\
  # bytes: the text of the whole domain; where you know its tokens, write tokens: 25e9
  domains:
    {indent.join(domains)}
# A target is evaluated and never trained on. Name the one that you care about,
# and set
# objective: {{target: exams}}
# evaluation:
#   exams: {{path: data/exams.jsonl}}
objective:   # what is minimised: the mean of these losses, with these weights
  mean:
    {indent.join(weights)}
design:
  method: axial    # one mixture for each domain first, then random ones
  trials: {trials}       # mixtures to try; {MAX_TRIALS} or more for a real decision
proxy:             # the small model that is trained on each mixture
  name: {_proxy()}
  tokens: 500_000  # of each trial; more tokens separate mixtures better
validate:
  seeds: 3         # the proposal is trained against natural, uniform and others
# The run that the mixture is for: no domain is repeated more often than this in it.
# propose: {{target_tokens: 25e9}}
# constraints: {{max_epochs: 4}}
"""


def _yaml_entry(name: str, value: object) -> str:
    return f"{_yaml(name)}: {_yaml(value)}"


def _yaml(value: object) -> str:
    """Return a value as YAML in one line."""
    listed: str = yaml.safe_dump(
        [value], allow_unicode=True, default_flow_style=True, sort_keys=False, width=ONE_LINE
    )
    return listed.strip()[1:-1]


def _tokenizer(sources: Sequence[FoundDomain]) -> str:
    is_large = sum(source.bytes for source in sources) >= BPE_FROM
    return "bpe:8192" if is_large and find_spec("tokenizers") else "bytes"


def _proxy() -> str:
    if find_spec("torch"):
        return "decoder    # or ngram: less accurate, but takes seconds"
    return "ngram      # decoder needs torch: pip install 'mixopt[all]'"


def find_domains(paths: Sequence[str | Path]) -> tuple[list[FoundDomain], list[str]]:
    """Find the domains of files and folders; also return what is left out, and why."""
    places = [Path(path) for path in paths]
    _check_places(places)
    left_out: list[str] = []
    while len(places) == 1 and places[0].is_dir():
        places = _visible(places[0], left_out)
    groups: dict[str, Splits] = {}
    for place in places:
        for file in _below(place, left_out):
            name, split = _split_of(place, file)
            groups.setdefault(name, {"train": [], "validation": [], "test": []})[split].append(file)
    domains = [_domain(name, splits, left_out) for name, splits in groups.items()]
    return [domain for domain in domains if domain is not None], left_out


def _check_places(places: Sequence[Path]) -> None:
    """Raise ConfigError if a file or folder is missing, or inside another one of them."""
    by_path = {place.resolve(): place for place in places}
    for place in places:
        if not place.exists():
            raise ConfigError(f"init: {place}: no such file or folder")
        path = place.resolve()
        for folder in (path, *path.parents):
            outer = by_path.get(folder, place)
            if outer is not place:
                raise ConfigError(
                    f"init: {place}: is in {outer}, which is given too; give one of them"
                )


def _domain(name: str, splits: Splits, left_out: list[str]) -> FoundDomain | None:
    """Return a domain of the files that have its text column; None if there are none."""
    fault = name_fault(name)
    if fault is not None:
        left_out.append(f"{name}: {fault}; rename it")
        return None
    held_out = "validation" if splits["validation"] else "test"
    for split, files in splits.items():
        if split not in ("train", held_out) or not splits["train"]:
            hint = f"a {split} split; name it under evaluation to use it"
            left_out += [f"{file}: {hint}" for file in files]
    if not splits["train"]:
        return None
    readable = _readable(splits["train"], left_out)
    samples = {file: _first_rows(file, left_out) for file in _spread(readable)}
    column = _common_column(samples.values())
    unusable: set[Path] = set()
    is_broken = False
    for file, rows in samples.items():
        if not _has_column(column, file, rows, left_out):
            unusable.add(file)
        elif rows is not None and rows.broken:
            is_broken = True
    used = [file for file in readable if file not in unusable]
    if not column or not used:
        return None
    validation = [
        file
        for file in _readable(splits[held_out], left_out)
        if _has_column(column, file, _first_rows(file, left_out), left_out)
    ]
    return FoundDomain(
        name,
        path=_paths(used),
        files=len(used),
        format=", ".join(dict.fromkeys(map(_suffix, used))),
        column=column,
        validation=_paths(validation),
        is_broken=is_broken,
    )


def _spread(files: Sequence[Path]) -> list[Path]:
    """Return at most MAX_FILES_READ of the files, evenly spaced."""
    step = max(1, len(files) / MAX_FILES_READ)
    return [files[int(k * step)] for k in range(min(MAX_FILES_READ, len(files)))]


def _common_column(samples: Iterable[FirstRows | None]) -> str:
    """Return the most frequent text column of the samples; "" if none has one."""
    columns = Counter[str]()
    for rows in samples:
        column = _text_column(rows) if rows is not None else None
        if column is not None:
            columns[column] += 1
    return max(columns, key=columns.__getitem__, default="")


def _readable(files: Sequence[Path], left_out: list[str]) -> list[Path]:
    """Return the files of a known format that are not empty."""
    unknown: dict[str, list[str]] = {}
    readable = []
    for file in files:
        if builder_of(file) is None:
            unknown.setdefault(file.suffix, []).append(str(file))
        elif not file.stat().st_size:
            left_out.append(f"{file}: empty file")
        else:
            readable.append(file)
    for suffix, names in unknown.items():
        why = f"{suffix} is not a supported text format" if suffix else "no suffix names the format"
        left_out.append(f"{first_few(names, 1)}: {why}")
    return readable


def _first_rows(file: Path, left_out: list[str]) -> FirstRows | None:
    try:
        rows = first_rows(file, builder_of(file) or "")
    except CorpusError as error:
        left_out.append(f"{file}: {error}")
        return None
    if rows.rows:
        return rows
    why = "no row can be read" if rows.broken else "no documents"
    left_out.append(f"{file}: {why}")
    return None


def _has_column(column: str, file: Path, rows: FirstRows | None, left_out: list[str]) -> bool:
    """Return whether the first rows of a file have the text column; if not, note why."""
    if rows is None:
        return False
    has_text = _text_column(rows) is not None
    if has_text and column in rows.columns:
        return True
    missing = f"{column!r}, which the other files have" if has_text else "of text"
    left_out.append(f"{file}: no column {missing} (columns: {', '.join(rows.columns[:8])})")
    return False


def _text_column(rows: FirstRows) -> str | None:
    """Return the text column: by its name, else the one with the longest text."""
    texts: dict[str, list[str]] = {}
    for name in rows.columns:
        values = rows.texts(name)
        if values and 2 * len(values) >= len(rows.rows):
            texts[name] = values
    for name in TEXT_NAMES:
        if name in texts:
            return name
    mean_lengths = {
        name: sum(map(len, values)) / len(values)
        for name, values in texts.items()
        if any(" " in text for text in values)
    }
    longest = max(mean_lengths, key=mean_lengths.__getitem__, default=None)
    if longest is None or mean_lengths[longest] < MIN_LENGTH:
        return None
    return longest


def _split_of(place: Path, file: Path) -> tuple[str, str]:
    """Return domain and split of a file."""
    folders: list[str] = []
    if place != file:
        folders = [place.resolve().name, *file.relative_to(place).parts[:-1]]
    stem = _stem(file)
    words = [folder.lower() for folder in folders]
    split_word = _SPLIT_WORD.search(stem)
    if split_word is not None:
        words.append(split_word[2].lower())
    splits = [SPLITS[word] for word in words if word in SPLITS]
    split = splits[0] if splits else "train"
    domains = [folder for folder in folders if folder.lower() not in SPLITS]
    if domains:
        return domains[0], split
    plain_stem = _SPLIT_WORD.sub("", stem).strip("-_. ")
    return plain_stem or place.resolve().parent.name or "text", split


def _visible(folder: Path, left_out: list[str]) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"init: {folder}: {error.strerror or error}") from error
    visible = [path for path in entries if not path.name.startswith((".", "_"))]
    if not visible:
        left_out.append(f"{folder}: no files")
    return visible


def _below(place: Path, left_out: list[str]) -> list[Path]:
    """Return a file, or all files in a folder, except files about the data."""
    if _ABOUT.fullmatch(place.name):
        left_out.append(f"{place}: is about the data")
        return []
    if not place.is_dir():
        return [place]
    files: list[Path] = []
    for path in _visible(place, left_out):
        files += _below(path, left_out)
    return files


def _suffix(file: Path) -> str:
    """Return the suffix of a file, including its compression, such as `.jsonl.gz`."""
    is_compressed = builder_of(file) is not None and builder_of(Path(f"a{file.suffix}")) is None
    return "".join(file.suffixes[-2:]) if is_compressed else file.suffix


def _stem(file: Path) -> str:
    """Return the common name of shards: `web` for `web-00001-of-00010.jsonl.gz`."""
    name = file.name.removesuffix(_suffix(file))
    return re.sub(r"[-_.]?\d+([-_.]?of[-_.]?\d+)?$", "", name) or name


def _paths(files: Sequence[Path]) -> list[str]:
    """Return globs that match exactly these files, or else the files."""
    names = {file.as_posix() for file in files}
    if len(files) > 1:
        of_suffix = _distinct(_glob(file, "") for file in files)
        if _match_exactly(of_suffix, names):
            return of_suffix
        of_stem = _distinct(_glob(file, _stem(file)) for file in files)
        if _match_exactly(of_stem, names):
            return of_stem
    return [glob.escape(name) for name in sorted(names)]


def _glob(file: Path, prefix: str) -> str:
    """Return the glob of the files beside a file with its suffix and a prefix."""
    start = glob.escape(f"{file.parent.as_posix()}/{prefix}")
    return f"{start}*{glob.escape(_suffix(file))}"


def _distinct(patterns: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(patterns))


def _match_exactly(globs: Sequence[str], names: set[str]) -> bool:
    if len(globs) > MAX_LISTED:
        return False
    matched: set[str] = set()
    for pattern in globs:
        matched.update(Path(path).as_posix() for path in glob.glob(pattern))
    return matched == names
