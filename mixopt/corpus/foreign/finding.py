"""Find the token files that paths, globs and folders name, and detect their format.

A tool's files that belong together are one: Megatron's .bin and .idx by their prefix, datatrove's
.ds with what is beside it, a folder that Mosaic's or litdata's writer made. What a name or the
first bytes of a file tell is its kind; llm.c's and raw tokens are both .bin, so that a folder of
both is refused, as is any folder of two kinds.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixopt.corpus.foreign.raw_tokens import LLMC_MAGIC, NUMPY, first_bytes
from mixopt.corpus.foreign.stored_tokens import stored_tokens
from mixopt.errors import CorpusError
from mixopt.system import is_url, local_path, read_json

_FOLDERS = ("mds", "litdata")
_RAW = ("nanogpt", "raw")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def token_files(patterns: Sequence[str], format: str | None = None) -> list[Path]:
    """Return what is to be read, in the order of the patterns and of names.

    Args:
        patterns: Files, prefixes, globs and folders, or URLs of such in stores, which are fetched.
        format: Of which tool they are; None where that is found of each.

    Raises:
        CorpusError: A pattern matches nothing, or a folder has files of two tools or of none.
    """
    found = [path for pattern in patterns for path in _named(pattern, format)]
    return list(dict.fromkeys(found))


def found_format(path: Path) -> str:
    """Return the format of a file, prefix or folder, as its name or first bytes tell.

    Raises:
        CorpusError: It is not there, or a folder that no tool made.
    """
    if _is_dataset(path):
        index = read_json(path / "index.json", error=CorpusError)
        return "litdata" if isinstance(index, dict) and "chunks" in index else "mds"
    if path.is_dir():
        raise CorpusError(
            f"{path / 'index.json'}: not found; a folder is read as mds or litdata, which have one,"
            " or as the files in it"
        )
    if path.name and _prefix(path).with_name(_prefix(path).name + ".idx").exists():
        return "megatron"
    if not path.is_file():
        raise CorpusError(f"{path}: not found")
    return _kind(path) or "nanogpt"


def _named(pattern: str, format: str | None) -> list[Path]:
    if not pattern:
        raise CorpusError("the path is empty")
    if is_url(pattern):
        return _in_store(pattern, format)
    expanded = local_path(pattern)
    if expanded.is_dir():
        return _in_folder(expanded, format)
    if expanded.exists() or glob.escape(str(expanded)) == str(expanded):
        return [_whole(expanded, format)] if _is_there(expanded) else [_absent(pattern)]
    matching = sorted(map(Path, glob.glob(str(expanded), recursive=True)))
    if not matching:
        raise CorpusError(f"{pattern}: the glob matches no file (working directory {Path.cwd()})")
    return [
        file
        for path in matching
        for file in (_in_folder(path, format) if path.is_dir() else [_whole(path, format)])
    ]


def _in_store(url: str, format: str | None) -> list[Path]:
    folder = stored_tokens(url, format)
    files = list(_visible(folder))
    if len(files) == 1 and _kind(files[0]) is None:
        return files
    return _in_folder(folder, format)


def _is_there(path: Path) -> bool:
    """Tell whether a file or a prefix is there; one of Megatron's two files will do."""
    return path.exists() or any(Path(f"{path}{suffix}").exists() for suffix in (".idx", ".bin"))


def _absent(pattern: str) -> Path:
    raise CorpusError(f"{pattern}: not found (working directory {Path.cwd()})")


def _whole(path: Path, format: str | None) -> Path:
    """Return the name under which the files beside one another are read."""
    if path.suffix in (".index", ".metadata") and path.with_suffix("").suffix == ".ds":
        return path.with_suffix("")
    if format == "megatron" or (format is None and path.suffix == ".idx"):
        return _prefix(path)
    if format is None and _prefix(path).with_name(_prefix(path).name + ".idx").exists():
        return _prefix(path)
    return path


def _prefix(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in (".bin", ".idx") else path


def _in_folder(folder: Path, format: str | None) -> list[Path]:
    """Return the files of a folder, which are all of one tool."""
    if format in _FOLDERS or (format is None and _is_dataset(folder)):
        return [folder]
    kinds: dict[str, Path] = {}
    files = []
    for path in _visible(folder):
        kind = _kind(path)
        if kind is not None:
            kinds.setdefault(kind, path)
            files.append(path)
    if len(kinds) > 1:
        named = " and ".join(f"{kind} ({path.name})" for kind, path in kinds.items())
        raise CorpusError(f"{folder}: has tokens of {named}; select the files of one by a glob")
    if not kinds:
        raise CorpusError(f"{folder}: has no files of tokens, nor an index.json of mds or litdata")
    kind = next(iter(kinds))
    if format is not None and kind != ("nanogpt" if format in _RAW else format):
        raise CorpusError(f"{folder}: its tokens are {kind}, such as {files[0].name}, not {format}")
    return list(dict.fromkeys(_whole(path, kind) for path in files))


def _is_dataset(folder: Path) -> bool:
    return (folder / "index.json").is_file()


def _visible(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            yield path


def _kind(path: Path) -> str | None:
    """Return the format of a file by its name or first bytes; None where it is none of tokens."""
    if path.name.endswith(_TARS):
        return "webdataset"
    if path.suffix == ".idx":
        return "megatron"
    if path.suffix == ".bin":
        if first_bytes(path, 4) in LLMC_MAGIC:
            return "llmc"
        return "megatron" if path.with_suffix(".idx").exists() else "nanogpt"
    if path.suffix == ".npy":
        return "npy" if first_bytes(path, len(NUMPY)) == NUMPY else "olmo"
    return "datatrove" if path.suffix == ".ds" else None
