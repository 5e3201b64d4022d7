"""Read an `index.json` of a corpus or of token shards: checked field by field, and by its seal.

The checks are by hand, since a training job reads shards with numpy and a YAML reader alone.
Version 1 of the formats had no seal; a corpus of that time is read as it is, its shards by their
hashes.
"""

from __future__ import annotations

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
from mixopt.tasks import TASK_FOLDER

INDEX = "index.json"
SEAL = "sha256"
PREPARE_AGAIN = "prepare the corpus again: mixopt prepare CONFIG --out DIR"
CORPUS_FORMAT = "mixopt-corpus/2"
STREAM_FORMAT = "mixopt-streamed/2"
TOKENIZER_FILES = ("tokenizer.json", ".tokenizer")
MOST = 1 << 60  # tokens, documents, bytes: more than there are
_WORDS = {int: "a whole number from 0 to 2**60", str: "text", list: "a list", dict: "fields"}


@dataclass(frozen=True)
class CorpusIndex:
    """What a corpus says of itself.

    Attributes:
        domains: Names of the domains, in order; each is the name of a folder.
        targets: Names of the targets.
        tokenizer: Name of the tokenizer.
        vocab_size: Its ids.
        fingerprint: Of the configuration that it was made from.
        provenance: What it was made from.
        tasks: Names of the tasks, in order.
    """

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    tokenizer: str
    vocab_size: int
    fingerprint: str
    provenance: dict[str, Any]
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class StreamIndex:
    """What the held-out text of streamed domains says of itself.

    Attributes:
        domains: Names of the domains, in order; each is the name of a folder.
        targets: Names of the targets.
        tokenizer: Name of the tokenizer.
        fingerprint: Of the configuration that it was made from.
        held_out: Digests of all documents that are held out.
    """

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    tokenizer: str
    fingerprint: str
    held_out: frozenset[bytes]


def read_corpus_index(folder: Path, *, verify: bool = True) -> CorpusIndex:
    """Read the index of a prepared corpus.

    Args:
        folder: The corpus.
        verify: Compare the hashes of the tokenizer's files and of the indices of shards.

    Raises:
        CorpusError: There is none, it is damaged, or one of these files has changed.
    """
    fields = {
        **_NAMED, "vocab_size": int, "fingerprint": str, "provenance": dict,
    }  # fmt: skip
    index = read_index(folder, CORPUS_FORMAT, fields, CorpusError)
    domains, targets = _names(folder, index)
    tasks = _task_names(folder, index)
    check_index_seal(folder, index, CorpusError)
    if verify:
        _check_files(folder, index)
    return CorpusIndex(
        domains, targets, index["tokenizer"], index["vocab_size"], index["fingerprint"],
        index["provenance"], tasks,
    )  # fmt: skip


def read_stream_index(folder: Path) -> StreamIndex:
    """Read the index of the held-out text of streamed domains.

    Raises:
        CorpusError: There is none, or it is damaged.
    """
    fields = {**_NAMED, "fingerprint": str, "held_out": list}
    index = read_index(folder, STREAM_FORMAT, fields, CorpusError)
    domains, targets = _names(folder, index)
    check_index_seal(folder, index, CorpusError)
    try:
        held_out = frozenset(bytes.fromhex(digest) for digest in index["held_out"])
    except (TypeError, ValueError) as reason:
        raise _fault(folder / INDEX, f"held_out: {reason}", CorpusError) from reason
    return StreamIndex(domains, targets, index["tokenizer"], index["fingerprint"], held_out)


def read_domain_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the domains of a corpus, or of a folder of shards with a list of them.

    A job that imports its own tokens may write `{"domains": [...]}` beside their folders.

    Raises:
        CorpusError: There is none, or it is damaged.
    """
    content = read_json(folder / INDEX, error=CorpusError, missing=lambda: absent(folder / INDEX))
    if isinstance(content, dict) and not {"format", "sha256"} & set(content):
        return _names(folder, {"targets": [], **_checked(folder, content, {"domains": list})})[0]
    return read_corpus_index(folder, verify=False).domains


def read_index(
    folder: Path, expected: str, fields: Mapping[str, type], error: type[MixoptError]
) -> dict[str, Any]:
    """Read the fields of an index; its seal is the caller's to check, after what it says.

    Args:
        folder: Where `index.json` is.
        expected: Its format.
        fields: The type of each field: int (0 to 2**60), str, list or dict.
        error: What is raised.

    Raises:
        MixoptError: `error`; it is absent, of another format, or a field is missing or wrong.
    """
    path = folder / INDEX
    content = read_json(path, error=error, missing=lambda: absent(path, error))
    index = _checked(folder, content, {"format": str}, error)
    if index["format"] not in (expected, _unsealed(expected)):
        found = shown_name(index["format"])
        raise _fault(path, f"format {found}, expected {expected!r}", error)
    return _checked(folder, content, fields, error)


def check_index_seal(folder: Path, index: Mapping[str, Any], error: type[MixoptError]) -> None:
    """Check that an index says what was written.

    Raises:
        MixoptError: `error`; it does not.
    """
    if index["format"] != _unsealed(index["format"]) or SEAL in index:
        check_seal(index, str(folder / INDEX), mend=PREPARE_AGAIN, error=error)


def corpus_records(
    folder: Path, names: Iterable[str], tasks: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return what the files of a corpus are, for its index.

    They are the tokenizer's, and the indices of shards and tasks, which have the hashes of what
    they list.

    Args:
        folder: The corpus, whose index is not yet written.
        names: Its domains and targets.
        tasks: Its tasks.
    """
    indices = [f"{name}/{split}/{INDEX}" for name in names for split in ("train", "validation")]
    indices += [f"{TASK_FOLDER}/{name}/{INDEX}" for name in tasks]
    files = [file for file in (*TOKENIZER_FILES, *indices) if (folder / file).exists()]
    records = folder_records(folder, files)
    return {name: record.to_json() for name, record in records.items()}


def check_tokenizer(folder: Path) -> None:
    """Check that the tokenizer in a corpus's folder is the one that it was made with.

    Raises:
        CorpusError: The index is damaged, or a file is missing, has changed or was added.
    """
    content = read_json(folder / INDEX, error=CorpusError, missing=lambda: absent(folder / INDEX))
    index = _checked(folder, content, {"format": str})
    known = STREAM_FORMAT if index["format"].startswith("mixopt-streamed/") else CORPUS_FORMAT
    index = read_index(folder, known, {}, CorpusError)
    check_index_seal(folder, index, CorpusError)
    _check_files(folder, index)


def read_records(folder: Path) -> dict[str, FileRecord]:
    """Return what the index of a corpus has recorded of tokenizer and indices of shards, by path.

    Raises:
        CorpusError: A record is damaged.
    """
    content = read_json(folder / INDEX, error=CorpusError, missing=lambda: absent(folder / INDEX))
    recorded = content.get("files", {}) if isinstance(content, dict) else {}
    return _records(folder, {"files": recorded})


def _records(folder: Path, index: Mapping[str, Any]) -> dict[str, FileRecord]:
    records = _checked(folder, dict(index), {"files": dict})["files"]
    return {name: _record(folder, name, record) for name, record in records.items()}


def _check_files(folder: Path, index: Mapping[str, Any]) -> None:
    if index["format"] == _unsealed(index["format"]):
        return  # they were not recorded
    known = _records(folder, index)
    for name, fault in Verifier(folder).faults(known).items():
        raise CorpusError(f"{folder / name}: {fault}; {PREPARE_AGAIN}")
    for name in TOKENIZER_FILES:
        if (folder / name).exists() and not any(k.split("/")[0] == name for k in known):
            raise CorpusError(f"{folder / name}: does not belong to this corpus; {PREPARE_AGAIN}")


def absent(path: Path, error: type[MixoptError] = CorpusError) -> MixoptError:
    """Return the error for a file that is not there."""
    return error(f"{path}: not found; {PREPARE_AGAIN}")


def _checked(
    folder: Path, content: Any, fields: Mapping[str, type], error: type[MixoptError] = CorpusError
) -> dict[str, Any]:
    path = folder / INDEX
    if not isinstance(content, dict):
        raise _fault(path, f"expected fields, got {type(content).__name__}", error)
    for name, kind in fields.items():
        if name not in content:
            raise _fault(path, f"{name}: is missing", error)
        fault = value_fault(content[name], kind)
        if fault is not None:
            raise _fault(path, f"{name}: {fault}", error)
    return content


def value_fault(value: object, kind: type) -> str | None:
    """Return why a value is none of a field's type; None where it is."""
    right = isinstance(value, kind) and not isinstance(value, bool)
    if right and (not isinstance(value, int) or 0 <= value <= MOST):
        return None
    shown = type(value).__name__ if isinstance(value, (dict, list)) else shown_name(value)
    return f"{shown} is not {_WORDS[kind]}"


def _names(folder: Path, index: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of domains and targets; each is the name of a folder in the corpus."""
    where = f"{folder / INDEX}: domain"
    known: list[str] = []
    for name in (*index["domains"], *index["targets"]):
        known.append(check_name(name, where, CorpusError))
        inside(folder, name, CorpusError)
        if name in known[:-1]:
            raise _fault(folder / INDEX, f"domain {name!r}: is listed twice", CorpusError)
    count = len(index["domains"])
    return tuple(known[:count]), tuple(known[count:])


def _task_names(folder: Path, index: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the tasks; each is the name of a folder among those of the tasks."""
    names = _checked(folder, {"tasks": [], **index}, {"tasks": list})["tasks"]
    where = f"{folder / INDEX}: task"
    return tuple(dict.fromkeys(check_name(name, where, CorpusError) for name in names))


def _record(folder: Path, name: str, record: object) -> FileRecord:
    if not isinstance(record, dict) or set(record) != {"bytes", "sha256"}:
        raise _fault(folder / INDEX, f"files.{name}: expected bytes and sha256", CorpusError)
    for field, kind in {"bytes": int, "sha256": str}.items():
        fault = value_fault(record[field], kind)
        if fault is not None:
            raise _fault(folder / INDEX, f"files.{name}.{field}: {fault}", CorpusError)
    return FileRecord(record["bytes"], record["sha256"])


def _unsealed(expected: str) -> str:
    """Return the version of a format that had no seal."""
    return expected.split("/", maxsplit=1)[0] + "/1"


def _fault(path: Path, what: str, error: type[MixoptError]) -> MixoptError:
    return error(f"{path}: {what}; {PREPARE_AGAIN}")


_NAMED: dict[str, type] = {
    "domains": list, "targets": list, "tokenizer": str,
}  # fmt: skip
