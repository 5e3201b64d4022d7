"""Find domains in folders and files of text, for `mixopt init`."""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mixopt.corpus import FirstRows, builder_of, column_pairs, first_rows
from mixopt.errors import ConfigError, CorpusError, is_control
from mixopt.system import name_fault, steady_progress

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
TEXT_NAMES = ("text", "content", "body", "document", "raw_content", "code", "article", "markdown")
SOURCE_NAMES = ("domain", "source", "subset", "category", "dataset", "lang", "language", "topic")
TARGET_NAMES = frozenset(
    ("eval", "evaluation", "test", "target", "targets", "heldout", "held_out", "held-out", "exams")
)
LOOKED_AT = 16  # files of a domain
LEAST_LENGTH = 16  # mean characters of a column that is taken for text without being called so
MOST_SOURCES = 50  # values of a column that are domains
LISTED = 20  # files that are named one by one


@dataclass(frozen=True)
class FoundDomain:
    """Files that are one domain."""

    name: str
    files: tuple[Path, ...]
    paths: tuple[str, ...]
    column: str
    rows: FirstRows
    broken: int = 0

    @property
    def formats(self) -> str:
        """Suffixes of its files, such as `.jsonl.gz`."""
        return ", ".join(dict.fromkeys(suffix_of(file) for file in self.files))

    @property
    def is_target(self) -> bool:
        """Whether its name says that it is for evaluation."""
        return self.name.lower() in TARGET_NAMES


@dataclass
class FoundFiles:
    """The domains of some paths, and what was left out."""

    domains: list[FoundDomain] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, files: Sequence[Path]) -> None:
        """Look at the files of a domain; keep those that can be used."""
        known = [file for file in files if self._is_known(file)]
        self.left_out += _unknown(name, [file for file in files if builder_of(file) is None])
        looked_at = {file: self._look(file) for file in _spread(known)}
        columns = {file: _text_column(rows) for file, rows in looked_at.items() if rows is not None}
        chosen = _commonest(column for column in columns.values() if column is not None)
        wrong = {file for file, rows in looked_at.items() if rows is None}
        for file, column in columns.items():
            if column is None or chosen not in looked_at[file].columns:  # type: ignore[union-attr]
                wrong.add(file)
                self.left_out.append(f"{file}: {_why(looked_at[file], chosen)}")
        kept = tuple(file for file in known if file not in wrong)
        if chosen is None or not kept:
            return
        rows = [one for file, one in looked_at.items() if file not in wrong and one is not None]
        paths = _paths(kept)
        broken = sum(one.broken for one in rows)
        self.domains.append(FoundDomain(self._free(name), kept, paths, chosen, rows[0], broken))

    def _is_known(self, file: Path) -> bool:
        if builder_of(file) is None:
            return False
        if file.stat().st_size == 0:
            self.left_out.append(f"{file}: empty file")
            return False
        return True

    def _look(self, file: Path) -> FirstRows | None:
        try:
            rows = first_rows(file, builder_of(file) or "")
        except CorpusError as error:
            self.left_out.append(f"{file}: {error}")
            return None
        if not rows.rows:
            what = "no row can be read" if rows.broken else "no documents"
            self.left_out.append(f"{file}: {what}")
            return None
        return rows

    def _free(self, name: str) -> str:
        """Return a name that may be a domain's, and is not one's already."""
        clean = "".join("_" if is_control(c) or c in "/\\" else c for c in name).strip(". ")[:60]
        taken = {domain.name for domain in self.domains}
        wanted = clean or "domain"
        numbers = range(2, len(taken) + 3)
        return next(n for n in (wanted, *(f"{wanted}_{k}" for k in numbers)) if n not in taken)


def find_domains(paths: Sequence[str | Path]) -> FoundFiles:
    """Find the domains of some files and folders."""
    places = [Path(path) for path in paths]
    for place in places:
        if not place.exists():
            raise ConfigError(f"init: {place}: no such file or folder")
    _check_apart(places)
    found = FoundFiles()
    for name, files in _grouped(places):
        if not files:
            found.left_out.append(f"{name}: no files")
            continue
        found.add(name, files)
    return found


def _check_apart(places: Sequence[Path]) -> None:
    """Refuse text that would be in two domains."""
    seen: dict[Path, Path] = {}
    for place in places:
        if (twice := seen.setdefault(place.resolve(), place)) is not place:
            raise ConfigError(f"init: {place}: is the same as {twice}; give it once")
    for resolved, place in seen.items():
        for folder in resolved.parents:
            if folder in seen:
                raise ConfigError(
                    f"init: {place}: is inside {seen[folder]}, which is given too; give one of them"
                )


def source_column(domain: FoundDomain) -> str | None:
    """Return the column that names the source of each row, if one does."""
    for name in SOURCE_NAMES:
        values = domain.rows.texts(name)
        distinct = len(set(values))
        is_of_all = name != domain.column and len(values) == len(domain.rows.rows)
        if is_of_all and 2 <= distinct <= min(MOST_SOURCES, max(2, len(values) // 2)):
            return name
    return None


def suffix_of(file: Path) -> str:
    """Return the suffix of a file, with that of its compression."""
    is_compressed = file.suffix.lower() in COMPRESSIONS and builder_of(file) is not None
    return "".join(file.suffixes[-2:]) if is_compressed else file.suffix


def _grouped(places: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Give the name and the files of each domain."""
    if len(places) > 1 or places[0].is_file():
        yield from _by_place(places)
        return
    folder = places[0]
    entries = _visible(folder)
    while len(entries) == 1 and entries[0].is_dir():
        folder = entries[0]
        entries = _visible(folder)
    if not entries:
        yield str(folder), []
    yield from _by_place(entries)


def _by_place(places: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    shards: dict[str, list[Path]] = {}
    for place in places:
        if place.is_dir():
            yield place.name or place.resolve().name, _below(place)
        else:
            shards.setdefault(_stem(place), []).append(place)
    yield from shards.items()


def _visible(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"init: {folder}: {error.strerror or error}") from error
    return [path for path in entries if not path.name.startswith((".", "_"))]


def _below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in _visible(folder):
        found += [path] if path.is_file() else _below(path) if path.is_dir() else []
    return found


def _stem(file: Path) -> str:
    """Return the name that shards share: `web` of `web-00001-of-00010.jsonl.gz`."""
    name = file.name.removesuffix(suffix_of(file))
    return re.sub(r"[-_.]?\d+([-_.]?of[-_.]?\d+)?$", "", name) or name


def _spread(files: Sequence[Path]) -> list[Path]:
    step = max(1, len(files) / LOOKED_AT)
    return [files[int(k * step)] for k in range(min(LOOKED_AT, len(files)))]


def _text_column(found: FirstRows) -> str | None:
    """Return the column of the text: one that is called so, else the longest text."""
    lengths: dict[str, float] = {}
    for name in found.columns:
        texts = found.texts(name)
        if 2 * len(texts) >= len(found.rows) and texts:
            lengths[name] = sum(map(len, texts)) / len(texts)
    named = [name for name in TEXT_NAMES if name in lengths]
    if named:
        return named[0]
    words = {name for name in lengths if any(" " in text for text in found.texts(name))}
    longest = max(words, key=lambda name: lengths[name], default=None)
    return longest if longest is not None and lengths[longest] >= LEAST_LENGTH else None


def _commonest(columns: Iterable[str]) -> str | None:
    counted = Counter(columns).most_common(1)
    return counted[0][0] if counted else None


def _why(rows: FirstRows | None, chosen: str | None) -> str:
    columns = ", ".join((() if rows is None else rows.columns)[:8])
    if chosen is None or rows is None or _text_column(rows) is None:
        return f"no column of text (columns: {columns})"
    return f"no column {chosen!r}, which the other files have (columns: {columns})"


def _unknown(name: str, files: Sequence[Path]) -> Iterator[str]:
    """Say which files are of formats that nothing here reads, a line a suffix."""
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        by_suffix.setdefault(file.suffix, []).append(file)
    for suffix, some in by_suffix.items():
        who = str(some[0]) if len(some) == 1 else f"{name}: {len(some)} files"
        why = f"{suffix} is not a supported text format" if suffix else "no suffix names the format"
        yield f"{who}: {why}"


def _paths(kept: Sequence[Path]) -> tuple[str, ...]:
    """Return globs that match just the files that are kept, else the files themselves."""
    names = {file.as_posix() for file in kept}
    for prefix in (lambda file: "", _stem):
        globs = dict.fromkeys(
            f"{glob.escape(file.parent.as_posix())}/{glob.escape(prefix(file))}*"
            f"{glob.escape(suffix_of(file))}"
            for file in kept
        )
        matched = {Path(path).as_posix() for pattern in globs for path in glob.glob(pattern)}
        if len(kept) > 1 and len(globs) <= LISTED and matched == names:
            return tuple(globs)
    return tuple(glob.escape(name) for name in sorted(names))


SAMPLE = 50_000_000  # bytes of text of a source that are written


@dataclass
class SplitSource:
    """One source of the rows."""

    file: Path
    bytes: int = 0
    written: int = 0
    documents: int = 0


def split_by_column(domain: FoundDomain, column: str, folder: Path) -> dict[str, SplitSource]:
    """Write a sample of each source that the rows name, and count the text of all."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(
            f"init: {folder} already exists; move it, or choose another --out"
        ) from None
    found: dict[str, SplitSource] = {}
    with ExitStack() as files:
        streams: dict[str, IO[str]] = {}
        for source, text in _rows(domain, column):
            if source not in found:
                found[source] = _source(source, folder, column, len(found))
                opened = found[source].file.open("w", encoding="utf-8")
                streams[source] = files.enter_context(opened)
            one, size = found[source], len(text.encode())
            one.bytes, one.documents = one.bytes + size, one.documents + 1
            if one.written < SAMPLE:
                one.written += size
                streams[source].write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return found


def _rows(domain: FoundDomain, column: str) -> Iterator[tuple[str, str]]:
    total = sum(file.stat().st_size for file in domain.files)
    done = 0
    with steady_progress("splitting by source", max(1, total)) as update:
        for file in domain.files:
            builder = builder_of(file) or ""
            yield from column_pairs(file, builder, column, domain.column)
            done += file.stat().st_size
            update(done, f"{file.name}")


def _source(source: str, folder: Path, column: str, known: int) -> SplitSource:
    fault = name_fault(source)
    if fault is not None:
        raise ConfigError(f"init: column {column!r} has the value {source!r}: {fault}")
    if known == MOST_SOURCES:
        raise ConfigError(f"init: column {column!r} has more than {MOST_SOURCES} values")
    return SplitSource(folder / f"{source}.jsonl")
