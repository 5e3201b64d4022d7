"""The documents of a domain, from wherever the configuration says that they are.

Local files are found by path or glob, relative to the working directory, and read by
mixopt.corpus.text.readers, which names file and line of a bad document. All else, a data set on the
hub, a data set saved to disk, remote files, goes through `datasets.load_dataset` with the arguments
of the configuration.
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
    read_file,
)
from mixopt.errors import CorpusError, MixoptError, PluginError, did_you_mean

_LOCAL_BUILDERS = frozenset(BUILDERS.values())
# How `datasets` reads splits from the names of files and folders.
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def read_documents(domain: str, source: SourceConfig, bad: BadDocuments) -> Iterator[str]:
    """Give the documents of a source that is not the environment, in order.

    Args:
        domain: Name of the domain, for messages.
        source: Where its documents are.
        bad: What to do with a document that cannot be read.

    Raises:
        CorpusError: A file or data set is missing, damaged, or has no such column.
    """
    reading = Reading(domain, source.column, bad)
    if is_local(source):
        for path, builder in local_files(domain, source):
            yield from read_file(path, builder, reading)
    else:
        yield from _from_datasets(source, reading)


def read_validation(domain: str, source: SourceConfig, bad: BadDocuments) -> Iterator[str]:
    """Give the documents of the files that `validation` names, read as the source's."""
    remote = not is_local(source) and source.environment is None and not _exists(source.validation)
    path = source.path if remote or _builder_name(source) is not None else None
    held_out = source.model_copy(
        update={
            "environment": None, "path": path, "data_files": source.validation, "split": "train",
        }
    )  # fmt: skip
    return read_documents(domain, held_out, bad)


def local_files(domain: str, source: SourceConfig) -> list[tuple[Path, str]]:
    """Return the files of a local source with the builder of each, in order of their names.

    Raises:
        CorpusError: A path or glob matches nothing, or a suffix stands for no builder.
    """
    builder = _builder_name(source)
    patterns = _as_list(source.data_files)
    roots = [] if builder else [Path(path).expanduser() for path in source.paths]
    if roots and patterns:  # a list of paths has no data_files
        patterns = [str(roots[0] / pattern) for pattern in patterns]
    found = [path for pattern in patterns for path in _matching(domain, pattern)]
    if not patterns:
        found = [path for root in roots for path in _below(domain, root, source.split)]
    if not found:
        raise CorpusError(f"domain {domain!r}: path: {builder} needs data_files: which files?")
    return [(path, _builder(domain, path, builder)) for path in dict.fromkeys(found)]


def check_files(domain: str, source: SourceConfig) -> None:
    """Check that local files are there, without reading them.

    Raises:
        CorpusError: A path or glob matches nothing, or a suffix stands for no builder.
    """
    if source.has_text and is_local(source):
        local_files(domain, source)


def is_local(source: SourceConfig) -> bool:
    """Tell local files, which are read here, from what goes through `datasets`."""
    if any("://" in pattern for pattern in _as_list(source.data_files)):
        return False
    if source.one_path is None or _builder_name(source) is not None:
        return source.environment is None
    path = Path(source.one_path).expanduser()
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
    return any(glob.glob(str(Path(p).expanduser()), recursive=True) for p in _as_list(patterns))


def _as_list(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _matching(domain: str, pattern: str) -> list[Path]:
    expanded = str(Path(pattern).expanduser())
    found = sorted(path for path in map(Path, glob.glob(expanded, recursive=True)))
    files = [file for path in found for file in ([path] if path.is_file() else _files(path))]
    if not files:
        what = "no such file" if glob.escape(expanded) == expanded else "the glob matches no file"
        raise CorpusError(f"domain {domain!r}: {pattern}: {what} (working directory {Path.cwd()})")
    return files


def _below(domain: str, root: Path, split: str) -> list[Path]:
    """Return the files of a folder that belong to a split, data before text."""
    if not root.is_dir():
        return _matching(domain, str(root))
    known = [path for path in _files(root) if builder_of(path) is not None]
    data = [path for path in known if builder_of(path) != "text"] or known
    chosen = _of_split(root, data, split)
    if not chosen:
        suffixes = ", ".join(BUILDERS)
        raise CorpusError(
            f"domain {domain!r}: {root}: no files of the split {split!r}"
            f" (suffixes read: {suffixes}; also with {', '.join(COMPRESSIONS)})"
        )
    return chosen


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _of_split(root: Path, files: Sequence[Path], split: str) -> list[Path]:
    named = {path: _split_of(path.relative_to(root).as_posix()) for path in files}
    if not any(named.values()):
        return list(files) if split == "train" else []
    return [path for path in files if named[path] == split]


def _split_of(name: str) -> str | None:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((s for s, known in _SPLIT_NAMES.items() if words & set(known)), None)


def _builder(domain: str, path: Path, builder: str | None) -> str:
    builder = builder or builder_of(path)
    if builder is None:
        raise CorpusError(
            f"domain {domain!r}: {path}: no reader for {path.suffix or 'a name without suffix'!r};"
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
            f"domain {reading.domain!r}: {path}: no such local file, and the hub cannot be"
            " reached for a data set of this name; give local files by path or data_files"
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
