"""Read an `index.json` of a corpus or of token shards: checked field by field, and by its seal.

The checks are by hand, since a training job reads shards with numpy and a YAML reader alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import CorpusError, MixoptError
from mixopt.system import (
    FileRecord,
    Verifier,
    check_name,
    check_seal,
    folder_records,
    inside,
    read_json,
    shown_name,
)

INDEX = "index.json"
PREPARE_AGAIN = "prepare the corpus again: mixopt prepare CONFIG --out DIR"
CORPUS_FORMAT = "mixopt-corpus/3"
TOKENIZER_FILES = ("tokenizer.json", ".tokenizer")
TASK_FOLDER = "tasks"
MAX_COUNT = 1 << 60  # tokens, documents, bytes: more than there are
_WORDS = {int: "a whole number from 0 to 2**60", str: "text", list: "a list", dict: "fields"}
_NAMED: dict[str, type] = {
    "domains": list, "targets": list, "tokenizer": str, "fingerprint": str, "files": dict,
}  # fmt: skip


@dataclass(frozen=True)
class CorpusIndex:
    """What a corpus says of itself."""

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    tokenizer: str
    vocab_size: int
    fingerprint: str
    provenance: dict[str, Any]
    tasks: tuple[str, ...]


def read_corpus_index(folder: Path, *, verify: bool = True) -> CorpusIndex:
    """Read the index of a prepared corpus."""
    fields = {**_NAMED, "tasks": list, "vocab_size": int, "provenance": dict}
    index = read_index(folder, CORPUS_FORMAT, fields, CorpusError)
    domains, targets = _names(folder, index)
    tasks = tuple(
        check_name(name, f"{folder / INDEX}: task", CorpusError) for name in index["tasks"]
    )
    if verify:
        _check_files(folder, index)
    return CorpusIndex(
        domains, targets, index["tokenizer"], index["vocab_size"], index["fingerprint"],
        index["provenance"], tasks,
    )  # fmt: skip


def read_domain_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the domains of a corpus, or of a folder of shards with a list of them."""
    content = _content(folder, CorpusError)
    if not {"format", "sha256"} & set(content):
        _check_fields(folder, content, {"domains": list}, CorpusError)
        return _names(folder, {"targets": [], **content})[0]
    return read_corpus_index(folder, verify=False).domains


def read_index(
    folder: Path, expected: str, fields: Mapping[str, type], error: type[MixoptError]
) -> dict[str, Any]:
    """Read the fields of an index, which must be what was written."""
    index = _content(folder, error)
    _check_fields(folder, index, {"format": str}, error)
    if index["format"] != expected:
        raise _fault(folder, f"format {shown_name(index['format'])}, expected {expected!r}", error)
    _check_fields(folder, index, fields, error)
    check_seal(index, str(folder / INDEX), mend=PREPARE_AGAIN, error=error)
    return index


def corpus_records(
    folder: Path, names: Iterable[str], tasks: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return what the files of a corpus are, for its index, which is not yet written."""
    indices = [f"{name}/{split}/{INDEX}" for name in names for split in ("train", "validation")]
    files = [file for file in (*TOKENIZER_FILES, *indices, *tasks) if (folder / file).exists()]
    return {name: record.to_json() for name, record in folder_records(folder, files).items()}


def corpus_hash(folder: Path) -> str:
    """Return the SHA-256, in hexadecimal digits, of what a corpus's index files say.

    It is quick, however large the shards are, since indices have their hashes, and tells a node
    whether what it sees is what the owner of a sweep verified.
    """
    found = hashlib.sha256()
    files = [path for path in sorted(folder.rglob(INDEX)) if path.is_file()]
    files += [path for path in map(folder.joinpath, TOKENIZER_FILES) if path.is_file()]
    if not (folder / INDEX).is_file():
        raise CorpusError(f"{folder}: holds no prepared corpus: {INDEX} is missing")
    try:
        for path in files:
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            found.update(f"{name}\0{len(content)}\0".encode() + content)
    except OSError as reason:
        raise CorpusError(f"{reason.filename}: cannot be read: {reason.strerror}") from reason
    return found.hexdigest()


def check_tokenizer(folder: Path) -> None:
    """Check that the tokenizer in a corpus's folder is the one that it was made with."""
    _check_files(folder, read_index(folder, CORPUS_FORMAT, {"files": dict}, CorpusError))


def prepared_tokenizer(name: str) -> str | None:
    """Return the tokenizer that a prepared corpus was made with; None where a name is none's."""
    folder = Path(name).expanduser()
    if not (folder / INDEX).is_file():
        return None
    content = read_json(folder / INDEX, error=CorpusError)
    is_ours = isinstance(content, dict) and content.get("format") == CORPUS_FORMAT
    known: Any = content.get("tokenizer") if is_ours else None
    return known if isinstance(known, str) else None


def absent(path: Path, error: type[MixoptError] = CorpusError) -> MixoptError:
    """Return the error for a file that is not there."""
    return error(f"{path}: not found; {PREPARE_AGAIN}")


def value_fault(value: object, kind: type) -> str | None:
    """Return why a value is none of a field's type; None where it is."""
    right = isinstance(value, kind) and not isinstance(value, bool)
    if right and (not isinstance(value, int) or 0 <= value <= MAX_COUNT):
        return None
    shown = type(value).__name__ if isinstance(value, (dict, list)) else shown_name(value)
    return f"{shown} is not {_WORDS[kind]}"


def _content(folder: Path, error: type[MixoptError]) -> dict[str, Any]:
    path = folder / INDEX
    content = read_json(path, error=error, missing=lambda: absent(path, error))
    if not isinstance(content, dict):
        raise _fault(folder, f"expected fields, got {type(content).__name__}", error)
    return content


def _check_fields(
    folder: Path, content: dict[str, Any], fields: Mapping[str, type], error: type[MixoptError]
) -> None:
    for name, kind in fields.items():
        if name not in content:
            raise _fault(folder, f"{name}: is missing", error)
        fault = value_fault(content[name], kind)
        if fault is not None:
            raise _fault(folder, f"{name}: {fault}", error)


def _check_files(folder: Path, index: Mapping[str, Any]) -> None:
    known = {name: _record(folder, name, record) for name, record in index["files"].items()}
    for name, fault in Verifier(folder).faults(known).items():
        raise CorpusError(f"{folder / name}: {fault}; {PREPARE_AGAIN}")
    for name in TOKENIZER_FILES:
        if (folder / name).exists() and not any(k.split("/")[0] == name for k in known):
            raise CorpusError(f"{folder / name}: does not belong to this corpus; {PREPARE_AGAIN}")


def _names(folder: Path, index: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of domains and targets; each is the name of a folder in the corpus."""
    known: list[str] = []
    for name in (*index["domains"], *index["targets"]):
        known.append(check_name(name, f"{folder / INDEX}: domain", CorpusError))
        inside(folder, name, CorpusError)
        if name in known[:-1]:
            raise _fault(folder, f"domain {name!r}: is listed twice", CorpusError)
    count = len(index["domains"])
    return tuple(known[:count]), tuple(known[count:])


def _record(folder: Path, name: str, record: object) -> FileRecord:
    if not isinstance(record, dict) or set(record) != {"bytes", "sha256"}:
        raise _fault(folder, f"files.{name}: expected bytes and sha256", CorpusError)
    for field, kind in {"bytes": int, "sha256": str}.items():
        fault = value_fault(record[field], kind)
        if fault is not None:
            raise _fault(folder, f"files.{name}.{field}: {fault}", CorpusError)
    return FileRecord(record["bytes"], record["sha256"])


def _fault(folder: Path, what: str, error: type[MixoptError]) -> MixoptError:
    return error(f"{folder / INDEX}: {what}; {PREPARE_AGAIN}")
