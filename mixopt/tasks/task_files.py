"""Encoded tasks on disk, in a folder of the corpus: one folder a task.

tasks/<name>/index.json    metrics, ids, how many rows; the hash of items.npz; a seal
tasks/<name>/items.npz     arrays of mixopt.tasks.encoded_task, without objects
"""

from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mixopt.config import Metric, Normalisation
from mixopt.errors import CorpusError
from mixopt.system import (
    FileRecord,
    FileShape,
    Verifier,
    check_name,
    file_record,
    inside,
    read_arrays,
    read_sealed,
    write_bytes,
    write_sealed,
)
from mixopt.tasks.encoded_task import TASK_FOLDER, EncodedTask

FORMAT = "mixopt-task/1"
INDEX, ARRAYS = "index.json", "items.npz"
MEND = "prepare the corpus again: mixopt prepare CONFIG --out DIR"
NAMED = ("name", "metrics", "normalisation", "ids")
COLUMNS = tuple(one.name for one in fields(EncodedTask) if one.name not in NAMED)


class _IndexShape(FileShape):
    """What an index must look like."""

    format: str
    name: str
    metrics: tuple[Metric, ...]
    normalisation: Normalisation
    ids: tuple[str, ...]
    bytes: int
    sha256_of_items: str


def write_task(task: EncodedTask, corpus: Path) -> None:
    """Write a task into the folder of a corpus; its index comes last."""
    folder = corpus / TASK_FOLDER / check_name(task.name, "task", CorpusError)
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(task, name) for name in COLUMNS})
    write_bytes(folder / ARRAYS, buffer.getvalue())
    record = file_record(folder / ARRAYS)
    content: dict[str, Any] = {"format": FORMAT, **{name: getattr(task, name) for name in NAMED}}
    content |= {"bytes": record.bytes, "sha256_of_items": record.sha256}
    write_sealed(folder / INDEX, content)


def open_tasks(corpus: Path, names: tuple[str, ...], *, verify: bool) -> tuple[EncodedTask, ...]:
    """Read the tasks of a corpus.

    Args:
        corpus: Its folder.
        names: The tasks, in order.
        verify: Compare the hashes of what they hold.

    Raises:
        CorpusError: One is absent, damaged or altered.
    """
    return tuple(
        _open(inside(corpus, f"{TASK_FOLDER}/{name}", CorpusError), verify) for name in names
    )


def _open(folder: Path, verify: bool) -> EncodedTask:
    index = read_sealed(folder / INDEX, _IndexShape, mend=MEND, error=CorpusError)
    if index.format != FORMAT or index.name != folder.name:
        raise CorpusError(f"{folder / INDEX}: is not the index of task {folder.name!r}; {MEND}")
    path = inside(folder, ARRAYS, CorpusError)
    if verify:
        fault = Verifier(folder).fault(ARRAYS, FileRecord(index.bytes, index.sha256_of_items))
        if fault is not None:
            raise CorpusError(f"{path}: {fault}; {MEND}")
    arrays: dict[str, Any] = dict(read_arrays(path, error=CorpusError))
    if set(arrays) != set(COLUMNS):
        raise CorpusError(f"{path}: has other arrays than a task; {MEND}")
    values: dict[str, Any] = {name: getattr(index, name) for name in NAMED}
    task = EncodedTask(**values, **arrays)
    if not _fits(task):
        raise CorpusError(f"{path}: its arrays do not fit each other; {MEND}")
    return task


def _fits(task: EncodedTask) -> bool:
    """Tell whether arrays have the shapes and ranges that their meaning asks for."""
    arrays = [getattr(task, name) for name in COLUMNS]
    if any(array.ndim != 1 or array.dtype.kind not in "iuf" for array in arrays):
        return False
    counts_R = [
        len(getattr(task, f"{name}_R")) for name in ("bytes", "characters", "item", "choice")
    ]
    if set(counts_R) != {task.rows} or len(task.start_R) != task.rows + 1 or not task.rows:
        return False
    if not len(task.ids) == len(task.weight_I) == task.items or not task.metrics:
        return False
    sizes_R = np.diff(task.start_R)
    gold = set(zip(range(task.items), task.gold_I.tolist(), strict=True))
    held = set(zip(task.item_R.tolist(), task.choice_R.tolist(), strict=True))
    return bool(
        task.start_R[0] == 0
        and task.start_R[-1] == len(task.tokens_T)
        and ((task.scored_R >= 1) & (task.scored_R < sizes_R)).all()
        and ((task.item_R >= 0) & (task.item_R < task.items)).all()
        and (task.bytes_R > 0).all()
        and (task.weight_I > 0).all()
        and gold <= held
    )
