r"""Downstream tasks: contexts with continuations, encoded once, scored in bits per byte.

    {"id": "394", "context": "Question: ...\nAnswer:", "continuation": " a", "weight": 1}

One JSON object per line, plain, .gz or .zst. A context and its continuation are encoded as one
text, as in training. Every token that ends after the context is scored, and exactly the bytes of
these tokens count. In a corpus, `tasks/<name>.npz` holds the arrays.

Shapes: R rows (a context with its continuation), T tokens of all rows.
"""

import hashlib
import heapq
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, StrictStr
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mixopt.config import BITS_PER_BYTE, TasksConfig, task_column
from mixopt.corpus.index_files import PREPARE_AGAIN, TASK_FOLDER
from mixopt.corpus.reader_context import Row, Values
from mixopt.corpus.text_files import RowFile
from mixopt.corpus.tokenizer import Tokenizer, token_dtype
from mixopt.errors import ConfigError, CorpusError
from mixopt.system import (
    AnyArray,
    Array,
    FileShape,
    IntArray,
    Say,
    check_name,
    checked_as,
    inside,
    local_copy,
    naming,
    one_line,
    read_arrays,
    shown_value,
    write_bytes,
)

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
MAX_WEIGHT = 1e15  # of an item
STEP = 64  # tokens; batch lengths are multiples of this


@pydantic_dataclass(frozen=True, config=FileShape.model_config)
class Item:
    """A text to continue.

    Attributes:
        id: Unique name within the task.
        context: Text before the continuation.
        continuation: Text to score; not empty.
        weight: Weight of the item in the mean, > 0.
    """

    id: StrictStr
    context: StrictStr
    continuation: Annotated[StrictStr, Field(min_length=1)]
    weight: Annotated[float, Field(gt=0, lt=MAX_WEIGHT, strict=True)] = 1.0


@dataclass(frozen=True)
class EncodedTask:
    """Rows of a task. A row begins with the end-of-document token, as training documents do.

    Attributes:
        name: The task.
        tokens_T: Concatenated token ids of all rows.
        start_R: Start of each row, and the end of the last row, shape (R + 1,).
        scored_R: Index within the row of its first scored token; all later tokens are scored.
        bytes_R: UTF-8 bytes of the scored tokens.
        weight_R: Weight of each row.
    """

    name: str
    tokens_T: AnyArray
    start_R: IntArray
    scored_R: IntArray
    bytes_R: IntArray
    weight_R: Array

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.scored_R)

    @property
    def scored_tokens(self) -> int:
        """Number of scored tokens."""
        return int((np.diff(self.start_R) - self.scored_R).sum())

    @property
    def column(self) -> str:
        """The name of the metric, among losses and in the table of trials."""
        return task_column(self.name, BITS_PER_BYTE)

    def row(self, number: int) -> AnyArray:
        """Return the tokens of a row."""
        return self.tokens_T[self.start_R[number] : self.start_R[number + 1]]

    def bits_per_byte(self, log_probability_R: Array) -> float:
        """Return the weighted mean over rows of -ln p / (bytes ln 2)."""
        bits_R = -np.asarray(log_probability_R, np.float64) / (self.bytes_R * math.log(2))
        return float((self.weight_R * bits_R).sum() / self.weight_R.sum())


def read_items(path: str | Path) -> Iterator[Item]:
    """Yield the items of a file, in order."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(f"{path}: no such file (working directory {Path.cwd()})")
    places: dict[str, str] = {}
    for where, values, fault in _rows(path):
        if values is None:
            raise ConfigError(f"{where}: {fault}")
        item = _item(values, where)
        if item.id in places:
            raise ConfigError(
                f"{where}: id {shown_value(item.id)} is also used in line {places[item.id]}; give"
                " each item its own id"
            )
        places[item.id] = where.rpartition(":")[2]
        yield item
    if not places:
        raise ConfigError(f"{path}: has no items; write one JSON object per line")


def chosen_items(items: Iterator[Item], max_items: int | None) -> list[Item]:
    """Return at most `max_items`, chosen by a hash of their ids, in file order; None: all."""
    if max_items is None:
        return list(items)

    def hashed(entry: tuple[int, Item]) -> tuple[bytes, int]:
        name = entry[1].id.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(name, digest_size=8).digest(), entry[0]

    smallest = heapq.nsmallest(max_items, enumerate(items), key=hashed)
    return [item for _, item in sorted(smallest, key=lambda entry: entry[0])]


def task_files(folder: str | Path) -> dict[str, Path]:
    """Return the task files of a folder by task name: `arc` for `arc.jsonl.gz`."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder (working directory {Path.cwd()})")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((end for end in ENDINGS if path.name.endswith(end)), None)
        if ending is None or path.name.startswith("."):
            continue
        name = check_name(path.name.removesuffix(ending), "task")
        if name in files:
            raise ConfigError(f"{path}: {files[name].name} is also task {name!r}; remove one")
        files[name] = path
    if not files:
        raise ConfigError(f"{folder}: has no tasks; add a file for each, *{', *'.join(ENDINGS)}")
    return files


def encode_task(name: str, items: Sequence[Item], tokenizer: Tokenizer) -> EncodedTask:
    """Encode the items of a task."""
    encoded = tokenizer.spans([item.context + item.continuation for item in items])
    tokens = []
    starts = [0]
    scored = []
    sizes = []
    for item, spans in zip(items, encoded, strict=True):
        first = int(np.searchsorted(spans.end_T, len(item.context.encode()), side="right"))
        if first == len(spans.end_T):
            raise ConfigError(
                f"task {name!r}: item {item.id!r}: the tokenizer has no token for the continuation"
                f" {item.continuation[:40]!r}; leave the item out, or use another tokenizer"
            )
        before = int(spans.end_T[first - 1]) if first else 0
        tokens += [np.array([tokenizer.end_of_document]), spans.tokens_T]
        starts.append(starts[-1] + 1 + len(spans.tokens_T))
        scored.append(1 + first)
        sizes.append(int(spans.end_T[-1]) - before)
    return EncodedTask(
        name=name,
        tokens_T=np.concatenate(tokens).astype(token_dtype(tokenizer.vocab_size)),
        start_R=np.array(starts),
        scored_R=np.array(scored),
        bytes_R=np.array(sizes),
        weight_R=np.array([item.weight for item in items], np.float64),
    )


def scored_items(tasks: TasksConfig, name: str) -> list[Item]:
    """Return the items of a configured task that are scored."""
    path = tasks.path(name)
    file = local_copy(path)
    with naming(file, path):
        return chosen_items(read_items(file), tasks.items)


def write_tasks(
    tasks: TasksConfig | None, tokenizer: Tokenizer, corpus: Path, say: Say
) -> list[str]:
    """Encode the items of all tasks into the folder of a corpus; return the tasks' names."""
    if tasks is None:
        return []
    for name in tasks.sets:
        task = encode_task(name, scored_items(tasks, name), tokenizer)
        write_task(task, corpus)
        counts = f"{task.rows:,} items, {task.scored_tokens:,} tokens to score"
        say(f"task {name}: {counts} of {len(task.tokens_T):,}")
    return list(tasks.sets)


def task_file(name: str) -> str:
    """Return the path of a task's file in a corpus."""
    return f"{TASK_FOLDER}/{check_name(name, 'task', CorpusError)}.npz"


def write_task(task: EncodedTask, corpus: Path) -> None:
    """Write a task into the folder of a corpus."""
    path = corpus / task_file(task.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(task, name) for name in _ARRAYS})
    write_bytes(path, buffer.getvalue())


def open_task(corpus: Path, name: str) -> EncodedTask:
    """Read a task of a corpus."""
    path = inside(corpus, task_file(name), CorpusError)
    arrays = read_arrays(path, error=CorpusError)
    if set(arrays) != set(_ARRAYS):
        raise CorpusError(f"{path}: damaged: its arrays are not those of a task; {PREPARE_AGAIN}")
    return EncodedTask(name, **arrays)


def _rows(path: Path) -> Iterator[Row]:
    try:
        yield from RowFile(path, "json")
    except Exception as error:  # libraries raise any type on a damaged file
        raise ConfigError(f"{path}: cannot be read: {one_line(error)}") from error


def _item(values: Values, where: str) -> Item:
    name = values.get("id")
    number = {"id": str(name)} if type(name) is int else {}
    item = checked_as(Item, {**values, **number}, where, ConfigError)
    for field, value in vars(item).items():
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            at = error.start + 1
            raise ConfigError(f"{where}: {field}: invalid UTF-8 at character {at}") from error
    return item


_ARRAYS = tuple(field.name for field in fields(EncodedTask) if field.name != "name")


class TaskWindow(NamedTuple):
    """Part of a row for one forward pass: at least two tokens, scored from index `scored`."""

    row: int
    tokens: AnyArray
    scored: int


def row_windows(number: int, tokens: AnyArray, scored: int, length: int) -> Iterator[TaskWindow]:
    """Yield the windows of one row."""
    first = scored
    end = len(tokens)
    while first < end:
        fits = end - first <= length
        stop = end if fits else min(first + max(length // 2, 1), end)
        begin = max(0, stop - length - 1)
        yield TaskWindow(number, tokens[begin:stop], first - begin)
        first = stop


class WindowBatch(NamedTuple):
    """Windows of one forward pass, padded with zeros.

    `place_P` indexes the scored tokens among the B * T predicted ones; `row_P` is the row of each.
    """

    tokens_BW: IntArray
    place_P: IntArray
    row_P: IntArray

    @property
    def targets_P(self) -> IntArray:
        """The scored tokens."""
        return self.tokens_BW[:, 1:].reshape(-1)[self.place_P]


class RowBatches:
    """Batches of windows of similar length, cut from rows with their first scored index."""

    def __init__(self, rows: Iterable[tuple[AnyArray, int]], *, longest: int, tokens: int) -> None:
        """Cut rows into windows of at most `longest` predicted tokens, and batch the windows."""
        self._rows = 0
        windows: list[TaskWindow] = []
        for number, (row, scored) in enumerate(rows):
            self._rows = number + 1
            windows += row_windows(number, row, scored, longest)

        def padded(window: TaskWindow) -> int:
            return min(-(-(len(window.tokens) - 1) // STEP) * STEP, longest)

        self.batches: list[WindowBatch] = []
        for length, group in groupby(sorted(windows, key=padded), padded):
            similar = list(group)
            size = max(1, tokens // length)
            for start in range(0, len(similar), size):
                self.batches.append(_batch(similar[start : start + size], length))

    def sums(self, values: Array) -> Array:
        """Sum the values of scored tokens (in batch order) over each row, shape (R,)."""
        row_P = np.concatenate([np.zeros(0, np.int64), *(batch.row_P for batch in self.batches)])
        return np.bincount(row_P, weights=values, minlength=self._rows).astype(np.float64)


def _batch(windows: Sequence[TaskWindow], length: int) -> WindowBatch:
    tokens_BW = np.zeros((len(windows), length + 1), dtype=np.int64)
    places = []
    rows = []
    for b, window in enumerate(windows):
        tokens_BW[b, : len(window.tokens)] = window.tokens
        places.append(np.arange(window.scored, len(window.tokens)) - 1 + b * length)
        rows.append(np.full(len(places[-1]), window.row))
    return WindowBatch(tokens_BW, np.concatenate(places), np.concatenate(rows))


def task_rows(tasks: Sequence[EncodedTask]) -> list[tuple[AnyArray, int]]:
    """Return the rows of all tasks, in order, for `RowBatches`."""
    rows = []
    for task in tasks:
        rows += [(task.row(r), int(task.scored_R[r])) for r in range(task.rows)]
    return rows


def task_metrics(tasks: Sequence[EncodedTask], log_probability_R: Array) -> dict[str, float]:
    """Return the bits per byte of each task by column name, from the log probability of rows."""
    parts = np.split(log_probability_R, np.cumsum([task.rows for task in tasks])[:-1])
    return {task.column: task.bits_per_byte(part) for task, part in zip(tasks, parts, strict=True)}
