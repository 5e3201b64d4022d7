"""Read the `index.json` of a corpus or of token shards, without pydantic, for a training job."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mixopt.errors import CorpusError, ErrorType
from mixopt.system import (
    FileRecord,
    PlainDict,
    StateFields,
    Verifier,
    check_name,
    check_path,
    check_seal,
    folder_records,
    inside,
    read_json,
    readable,
    shown_value,
)

INDEX = "index.json"
PREPARE_AGAIN = "prepare the corpus again: mixopt run CONFIG --out DIR --until prepare"
ABSENT = f"not found; {PREPARE_AGAIN}"
CORPUS_FORMAT = "mixopt-corpus/3"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
TASK_FOLDER = "tasks"
MAX_COUNT = 1 << 60  # tokens, documents or bytes; larger than any corpus


def read_corpus_index(folder: Path, *, verify: bool = True) -> StateFields:
    """Read the index of a prepared corpus; compare its files with their hashes if `verify`."""
    index = read_index(folder, CORPUS_FORMAT, CorpusError)
    _check_names(folder, [*index.texts("domains"), *index.texts("targets")])
    for name in index.texts("tasks"):
        check_name(name, f"{index.where}: task", CorpusError)
    if verify:
        _check_files(folder, index)
    return index


def read_index(folder: Path, expected: str, error: ErrorType) -> StateFields:
    """Return the fields of an index; raise if its format or seal is wrong."""
    index = _fields(folder, error)
    if index.text("format") != expected:
        raise index.error(
            f"{index.where}: format {shown_value(index.text('format'))}, expected {expected!r}"
        )
    check_seal(index.content, index.where, hint=PREPARE_AGAIN, error=error)
    return index


def corpus_records(
    folder: Path, names: Iterable[str], tasks: Iterable[str] = ()
) -> dict[str, PlainDict]:
    """Return size and hash of the files of a corpus, for its index."""
    indices = [f"{name}/{split}/{INDEX}" for name in names for split in ("train", "validation")]
    files = [file for file in (*TOKENIZER_FILES, *indices, *tasks) if (folder / file).exists()]
    return {name: vars(record) for name, record in folder_records(folder, files).items()}


def corpus_hash(folder: Path) -> str:
    """Return the hexadecimal SHA-256 of all indices of a corpus, which contain its hashes."""
    if not (folder / INDEX).is_file():
        raise CorpusError(f"{folder}: holds no prepared corpus: {INDEX} is missing")
    sha256 = hashlib.sha256()
    files = [path for path in sorted(folder.rglob(INDEX)) if path.is_file()]
    files += [path for path in map(folder.joinpath, TOKENIZER_FILES) if path.is_file()]
    with readable(folder, CorpusError):
        for path in files:
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            sha256.update(f"{name}\0{len(content)}\0".encode() + content)
    return sha256.hexdigest()


def check_tokenizer(folder: Path) -> None:
    """Check that the tokenizer files of a corpus match its index."""
    _check_files(folder, read_index(folder, CORPUS_FORMAT, CorpusError))


def prepared_tokenizer(name: str) -> str | None:
    """Return the tokenizer of the prepared corpus in folder `name`; None: not a corpus."""
    folder = Path(name).expanduser()
    if not (folder / INDEX).is_file():
        return None
    index = _fields(folder, CorpusError)
    return index.text("tokenizer") if index.content.get("format") == CORPUS_FORMAT else None


def _fields(folder: Path, error: ErrorType) -> StateFields:
    path = folder / INDEX
    content = read_json(path, error=error, missing=ABSENT)
    return StateFields(content, str(path), lambda text: error(f"{text}; {PREPARE_AGAIN}"))


def _check_names(folder: Path, names: list[str]) -> None:
    """Check the names of domains; each is a folder in the corpus."""
    for name, times in Counter(names).items():
        check_path(name, f"{folder / INDEX}: domain", CorpusError)
        inside(folder, name, CorpusError)
        if times > 1:
            raise CorpusError(f"{folder / INDEX}: domain {name!r} is listed twice; {PREPARE_AGAIN}")


def _check_files(folder: Path, index: StateFields) -> None:
    files = index.part("files")
    records = {}
    for name in files.content:
        record = files.part(name)
        records[name] = FileRecord(record.whole("bytes", 0, MAX_COUNT), record.text("sha256"))
    for name, fault in Verifier(folder).faults(records).items():
        raise CorpusError(f"{folder / name}: {fault}; {PREPARE_AGAIN}")
    for name in TOKENIZER_FILES:
        if (folder / name).exists() and name not in records:
            raise CorpusError(f"{folder / name}: does not belong to this corpus; {PREPARE_AGAIN}")
