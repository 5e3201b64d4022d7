"""The documents of a domain, from wherever the configuration says that they are.

Files are found by path, URL or glob, paths relative to the working directory, and read by
mixopt.corpus.text.readers, which names file and line of a bad document. All else, a data set on the
hub, a data set saved to disk, files that are streamed without a copy, goes through
`datasets.load_dataset` with the arguments of the configuration.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixopt.config import SourceConfig
from mixopt.corpus.text.child_reader import read_in_child, sent
from mixopt.corpus.text.documents import BadDocuments
from mixopt.corpus.text.reader_input import Reading
from mixopt.corpus.text.readers import (
    BUILDERS,
    COMPRESSIONS,
    builder_of,
    read_batches,
)
from mixopt.corpus.text.text_file import (
    Note,
    TextFile,
    builder_of_place,
    objects_of,
)
from mixopt.errors import CorpusError, MixoptError, PluginError, did_you_mean
from mixopt.system import StoredObject, is_url, local_path, under_folder

Place = Path | StoredObject
_LOCAL_BUILDERS = frozenset(BUILDERS.values())
# How `datasets` reads splits from the names of files and folders.
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def read_documents(
    domain: str, source: SourceConfig, bad: BadDocuments, note: Note | None = None
) -> Iterator[str]:
    """Give the documents of a source that is not the environment, in order.

    Args:
        domain: Name of the domain, for messages.
        source: Where its documents are.
        bad: What to do with a document that cannot be read.
        note: Receives what each object of a store was when it was fetched.

    Raises:
        CorpusError: A file or data set is missing, damaged, or has no such column.
    """
    reading = Reading(domain, source.column, bad)
    if is_local(source):
        for file in text_files(domain, source):
            yield from file.documents(reading, note)
    else:
        yield from _from_datasets(source, reading)


def read_validation(
    domain: str, source: SourceConfig, bad: BadDocuments, note: Note | None = None
) -> Iterator[str]:
    """Give the documents of the files that `validation` names, read as the source's."""
    remote = not is_local(source) and source.environment is None and not _exists(source.validation)
    path = source.path if remote or _builder_name(source) is not None else None
    held_out = source.model_copy(
        update={
            "environment": None, "path": path, "data_files": source.validation, "split": "train",
        }
    )  # fmt: skip
    return read_documents(domain, held_out, bad, note)


def text_files(domain: str, source: SourceConfig) -> list[TextFile]:
    """Return the files of a source that is read here, in order of their names.

    Raises:
        CorpusError: A path, URL or glob matches nothing, or a suffix stands for no builder.
    """
    builder = _builder_name(source)
    patterns = _as_list(source.data_files)
    roots = [] if builder else list(source.paths)
    if roots and patterns:  # a list of paths has no data_files
        patterns = [under_folder(roots[0], pattern) for pattern in patterns]
    found = [place for pattern in patterns for place in _matching(domain, pattern)]
    if not patterns:
        found = [place for root in roots for place in _below(domain, root, source.split)]
    if not found:
        raise CorpusError(f"domain {domain!r}: path: {builder} needs data_files; name its files")
    return [TextFile(place, _builder(domain, place, builder)) for place in dict.fromkeys(found)]


def check_files(domain: str, source: SourceConfig) -> None:
    """Check that files are there, without reading them.

    Raises:
        CorpusError: A path, URL or glob matches nothing, or a suffix stands for no builder.
    """
    if source.has_text and is_local(source):
        text_files(domain, source)


def is_local(source: SourceConfig) -> bool:
    """Tell files, which are read here, from what goes through `datasets`."""
    files = _as_list(source.data_files)
    if source.streaming and any("://" in pattern for pattern in files):
        return False
    if any(is_url(pattern) for pattern in (*files, *source.paths)):
        return True
    if source.one_path is None or _builder_name(source) is not None:
        return source.environment is None
    path = local_path(source.one_path)
    if path.is_dir():
        return not (path / "state.json").exists() and not (path / "dataset_dict.json").exists()
    return path.exists() or _looks_like_path(source.one_path)


def _builder_name(source: SourceConfig) -> str | None:
    """Return the builder that `path` names in place of files, if it does."""
    return source.one_path if source.one_path in _LOCAL_BUILDERS else None


def _looks_like_path(name: str) -> bool:
    """Tell a path that is not there from the name of a data set on the hub."""
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or any(character in name for character in "*?[")
        or builder_of(Path(name)) is not None
    )


def _exists(patterns: str | list[str] | None) -> bool:
    return any(is_url(p) or _globbed(p) for p in _as_list(patterns))


def _globbed(pattern: str) -> list[str]:
    return glob.glob(str(local_path(pattern)), recursive=True)


def _as_list(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _matching(domain: str, pattern: str) -> list[Place]:
    if is_url(pattern):
        return list(objects_of(domain, pattern))
    found = sorted(map(Path, _globbed(pattern)))
    files: list[Place] = []
    for path in found:
        files += [path] if path.is_file() else _files(path)
    if not files:
        plain = str(local_path(pattern))
        what = "no such file" if glob.escape(plain) == plain else "the glob matches no file"
        raise CorpusError(f"domain {domain!r}: {pattern}: {what} (working directory {Path.cwd()})")
    return files


def _below(domain: str, root: str, split: str) -> list[Place]:
    """Return the files of a folder that belong to a split, data before text."""
    folder = local_path(root)
    found = _matching(domain, root) if is_url(root) or not folder.is_dir() else _files(folder)
    start = root.rstrip("/") if is_url(root) else str(folder)
    names = {place: _name_below(start, place) for place in found}
    if None in names.values():  # a file, or what a glob matches
        return list(names)
    known = [place for place in found if builder_of_place(place) is not None]
    data = [place for place in known if builder_of_place(place) != "text"] or known
    chosen = _of_split({place: names[place] or "" for place in data}, split)
    if not chosen:
        suffixes = ", ".join(BUILDERS)
        raise CorpusError(
            f"domain {domain!r}: {root}: no files of the split {split!r}"
            f" (suffixes read: {suffixes}; also with {', '.join(COMPRESSIONS)})"
        )
    return chosen


def _name_below(folder: str, place: Place) -> str | None:
    """Return the name of a file in a folder; None where it is not in it, but what it names."""
    if isinstance(place, Path):
        is_in = place.is_relative_to(folder) and place != Path(folder)
        return place.relative_to(folder).as_posix() if is_in else None
    start, whole = (url.partition("://")[2].strip("/") for url in (folder, place.url))
    return whole.removeprefix(f"{start}/") if whole.startswith(f"{start}/") else None


def _files(folder: Path) -> list[Place]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    hidden = [any(p.startswith(".") for p in path.relative_to(folder).parts) for path in found]
    return [path for path, is_hidden in zip(found, hidden, strict=True) if not is_hidden]


def _of_split(names: Mapping[Place, str], split: str) -> list[Place]:
    named = {place: _split_of(name) for place, name in names.items()}
    if not any(named.values()):
        return list(named) if split == "train" else []
    return [place for place, found in named.items() if found == split]


def _split_of(name: str) -> str | None:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((s for s, known in _SPLIT_NAMES.items() if words & set(known)), None)


def _builder(domain: str, place: Place, builder: str | None) -> str:
    builder = builder or builder_of_place(place)
    if builder is None:
        suffix = Path(place.name).suffix or "a name without suffix"
        where = place if isinstance(place, Path) else place.url
        raise CorpusError(
            f"domain {domain!r}: {where}: no reader for {suffix!r};"
            f" name one as path: {', '.join(sorted(_LOCAL_BUILDERS))}, with data_files"
        )
    return builder


def _from_datasets(source: SourceConfig, reading: Reading) -> Iterator[str]:
    """Read through `datasets`: what is on this disk in a child, as its files are of any origin."""
    if source.one_path is not None and Path(source.one_path).expanduser().is_dir():
        arguments = {"source": source.model_dump(mode="json", exclude_defaults=True)}
        yield from read_in_child(f"{__name__}:saved_documents", source.one_path, arguments, reading)
    else:
        yield from _rows_of(source, reading)


def saved_documents(source: Mapping[str, Any], **given: Any) -> Iterator[bytes]:
    """Read a data set that was saved to disk; runs in the child."""
    checked = SourceConfig.model_validate(source)
    yield from sent(lambda reading: _rows_of(checked, reading), **given)


def _rows_of(source: SourceConfig, reading: Reading) -> Iterator[str]:
    rows = load_rows(source, reading)
    if rows.column_names is not None:
        reading.check_column(source.path, rows.column_names)
        rows = rows.select_columns([reading.column])
    try:
        for table in rows.with_format("arrow").iter(batch_size=1_000):
            reading.check_column(source.path, table.column_names)
            yield from read_batches(source.path, [table], reading)
    except MixoptError:
        raise
    except Exception as error:  # whatever a library raises on damaged data
        reading.damaged(source.path, error)


def load_rows(source: SourceConfig, reading: Reading) -> Any:
    """Open a source that is not local files, as `datasets` has it.

    Raises:
        CorpusError: There is no such data set, or no such split.
        PluginError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise PluginError(
            f"domain {reading.domain!r} needs datasets: pip install 'mixopt[proxies]'"
        ) from error
    path = source.one_path or str(builder_of(Path(_as_list(source.data_files)[0])))
    try:
        if Path(path).expanduser().is_dir():
            saved = datasets.load_from_disk(str(Path(path).expanduser()))
            return _split(saved, source, reading) if isinstance(saved, dict) else saved
        return datasets.load_dataset(
            path, source.name, data_files=source.data_files, split=source.split,
            revision=source.revision, streaming=source.streaming,
        )  # fmt: skip
    except ConnectionError as error:
        raise CorpusError(
            f"domain {reading.domain!r}: {path}: no such local file, and the hub cannot be "
            "reached to look for a data set of this name; give local files by path or data_files"
        ) from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise reading.unreadable(path, error) from error


def _split(saved: Mapping[str, Any], source: SourceConfig, reading: Reading) -> Any:
    if source.split not in saved:
        raise CorpusError(
            f"domain {reading.domain!r}: {source.path}: no split {source.split!r}"
            f"{did_you_mean(source.split, saved)}"
        )
    return saved[source.split]
