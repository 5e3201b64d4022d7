"""The documents of a domain, from the source given in the configuration.

Files are found by path, URL or glob and read by mixopt.corpus.text_files; an object of a store is
fetched to this node and named by its URL. All other sources (a data set on the hub or saved to
disk, streamed files) are read by `datasets.load_dataset`.
"""

import glob
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from mixopt.config import SourceConfig, Sources
from mixopt.corpus.reader_context import ReaderContext, Row
from mixopt.corpus.text_files import BUILDERS, COMPRESSIONS, RowFile, builder_of, rows_of
from mixopt.errors import CorpusError, did_you_mean
from mixopt.system import (
    StoredObject,
    fetched,
    is_url,
    list_objects,
    local_path,
    needed_by,
    under_folder,
    visible_files,
)

Place = Path | StoredObject
_LOCAL_BUILDERS = frozenset(BUILDERS.values())
# Words in the names of files and folders by which `datasets` recognises splits.
_SPLIT_NAMES = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "dev", "val"},
    "test": {"test", "testing", "eval", "evaluation"},
}


class TextFile(NamedTuple):
    """A file of a source, on this disk or in a store."""

    domain: str
    place: Place
    builder: str

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        place = self.place
        return place.bytes if isinstance(place, StoredObject) else place.stat().st_size

    def rows(self, reading: ReaderContext) -> RowFile:
        """Return its rows; fetch the file if it is in a store."""
        path = self.place
        if isinstance(path, StoredObject):
            with of_domain(self.domain):
                path = fetched(path)
        return RowFile(path, self.builder, reading, str(self.place))


def read_documents(
    source: SourceConfig, reading: ReaderContext, at: Path | None = None
) -> Iterator[str]:
    """Yield the documents of a source that is not the environment, in order.

    The file `at` holds the name of the file that is being read, in case this process dies.
    """
    if not is_local(source):
        yield from reading.documents(_dataset_rows(source, reading), source.path)
        return
    for file in text_files(reading.domain, source):
        if at is not None:
            at.write_text(str(file.place))
        yield from reading.documents(file.rows(reading), file.place)


def read_validation(source: SourceConfig, reading: ReaderContext) -> Iterator[str]:
    """Return the documents of the files that `validation` names, read like the source."""
    is_here = any(is_url(p) or _globbed(p) for p in source.validation_files)
    remote = not is_local(source) and source.environment is None and not is_here
    keeps_path = remote or _builder_name(source) is not None
    held_out = {
        "environment": None,
        "path": source.path if keeps_path else None,
        "data_files": source.validation,
        "split": "train",
    }
    return read_documents(source.model_copy(update=held_out), reading)


def text_files(domain: str, source: SourceConfig) -> list[TextFile]:
    """Return the files of a local source, in order of their names."""
    builder = _builder_name(source)
    patterns = list(source.files)
    roots = [] if builder else list(source.paths)
    if roots and patterns:  # a list of paths has no data_files
        patterns = [under_folder(roots[0], pattern) for pattern in patterns]
    places = [place for pattern in patterns for place in _matching(domain, pattern)]
    if not patterns:
        places = [place for root in roots for place in _below(domain, root, source.split)]
    if not places:
        raise CorpusError(f"domain {domain!r}: path: {builder} needs data_files; name its files")
    return [
        TextFile(domain, place, builder or _builder(domain, place))
        for place in dict.fromkeys(places)
    ]


def shared_files(sources: Sources, root: str | None = None) -> dict[Path, list[str]]:
    """Return the local files that several domains read, with the names of these domains."""
    readers = defaultdict[Path, list[str]](list)
    for name, source in sources.items():
        if source.has_text and not source.cell and not source.is_tokens and is_local(source):
            for file in text_files(name, source.under(root)):
                if isinstance(file.place, Path):
                    readers[file.place.resolve()].append(name)
    return {file: names for file, names in readers.items() if len(names) > 1}


def is_local(source: SourceConfig) -> bool:
    """Return whether a source is files that this package reads, not a data set of `datasets`."""
    if source.streaming and any("://" in pattern for pattern in source.files):
        return False
    if any(is_url(pattern) for pattern in (*source.files, *source.paths)):
        return True
    if source.one_path is None or _builder_name(source) is not None:
        return source.environment is None
    path = local_path(source.one_path)
    if path.is_dir():
        return not (path / "state.json").exists() and not (path / "dataset_dict.json").exists()
    return path.exists() or _looks_like_path(source.one_path)


def _dataset_rows(source: SourceConfig, reading: ReaderContext) -> Iterator[Row]:
    """Yield the rows of a source that `datasets` reads."""
    rows = _dataset(source, reading)
    if rows.column_names is not None:
        reading.check_columns(source.path, rows.column_names)
        rows = rows.select_columns(reading.columns)
    numbers = count(1)
    for table in rows.with_format("arrow").iter(batch_size=1_000):
        reading.check_columns(source.path, table.column_names)
        for values, fault in rows_of(table):
            yield Row(f"{source.path} (row {next(numbers)})", values, fault)


def _dataset(source: SourceConfig, reading: ReaderContext) -> Any:
    with needed_by(f"domain {reading.domain!r}"):
        import datasets
    path = source.one_path or str(builder_of(Path(source.files[0])))
    try:
        if Path(path).expanduser().is_dir():
            saved = datasets.load_from_disk(str(Path(path).expanduser()))
            if not isinstance(saved, dict):
                return saved
            if source.split not in saved:
                raise CorpusError(
                    f"domain {reading.domain!r}: {path}: no split {source.split!r}"
                    f"{did_you_mean(source.split, saved)}"
                )
            return saved[source.split]
        return datasets.load_dataset(
            path, source.name, data_files=source.data_files, split=source.split,
            streaming=source.streaming,
        )  # fmt: skip
    except ConnectionError as error:
        raise CorpusError(
            f"domain {reading.domain!r}: {path}: no such local file, and the hub cannot be "
            "reached to look for a data set of this name; give local files by path or data_files"
        ) from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise reading.unreadable(path, error) from error


def _builder_name(source: SourceConfig) -> str | None:
    """Return the builder that `path` names in place of files; None: it names files."""
    return source.one_path if source.one_path in _LOCAL_BUILDERS else None


def _looks_like_path(name: str) -> bool:
    """Return whether a name is a missing path rather than a data set on the hub."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or glob.has_magic(name)
    return is_path or builder_of(Path(name)) is not None


def _globbed(pattern: str) -> list[str]:
    return glob.glob(str(local_path(pattern)), recursive=True)


def _matching(domain: str, pattern: str) -> list[Place]:
    if is_url(pattern):
        with of_domain(domain):
            return list(list_objects(pattern))
    paths = sorted(map(Path, _globbed(pattern)))
    files: list[Place] = [file for path in paths for file in visible_files(path)]
    if not files:
        fault = "the glob matches no file" if glob.has_magic(pattern) else "no such file"
        raise CorpusError(f"domain {domain!r}: {pattern}: {fault} (working directory {Path.cwd()})")
    return files


@contextmanager
def of_domain(name: str) -> Iterator[None]:
    """Name the domain in errors."""
    try:
        yield
    except CorpusError as error:
        raise CorpusError(f"domain {name!r}: {error}") from error


def _below(domain: str, root: str, split: str) -> list[Place]:
    """Return the files of a split in a folder; text files only if there are no data files."""
    folder = local_path(root)
    is_here = not is_url(root) and folder.is_dir()
    places: list[Place] = [*visible_files(folder)] if is_here else _matching(domain, root)
    start = root.rstrip("/") if is_url(root) else str(folder)
    names = {place: _name_below(start, place) for place in places}
    if None in names.values():  # `root` is a file or a glob
        return places
    readable = [place for place in places if builder_of(Path(place.name)) is not None]
    data = [place for place in readable if builder_of(Path(place.name)) != "text"] or readable
    splits = {place: _split_of(names[place] or "") for place in data}
    if not any(splits.values()):
        splits = dict.fromkeys(data, "train")
    chosen = [place for place, name in splits.items() if name == split]
    if not chosen:
        raise CorpusError(
            f"domain {domain!r}: {root}: no files of the split {split!r} (suffixes read:"
            f" {', '.join(BUILDERS)}; also with {', '.join(COMPRESSIONS)})"
        )
    return chosen


def _name_below(folder: str, place: Place) -> str | None:
    """Return the name of a file relative to a folder; None: it is not in the folder."""
    if isinstance(place, Path):
        is_in = place.is_relative_to(folder) and place != Path(folder)
        return place.relative_to(folder).as_posix() if is_in else None
    start, full = (url.partition("://")[2].strip("/") for url in (folder, place.url))
    return full.removeprefix(f"{start}/") if full.startswith(f"{start}/") else None


def _split_of(name: str) -> str | None:
    words = set(re.split(r"[^a-z]+", name.lower()))
    for split, names in _SPLIT_NAMES.items():
        if words & names:
            return split
    return None


def _builder(domain: str, place: Place) -> str:
    builder = builder_of(Path(place.name))
    if builder is None:
        suffix = Path(place.name).suffix or "a name without suffix"
        raise CorpusError(
            f"domain {domain!r}: {place}: no reader for {suffix!r};"
            f" set path to a reader ({', '.join(sorted(_LOCAL_BUILDERS))}), and data_files"
        )
    return builder
