"""Read the results of evaluation harnesses: lm-eval's results, OLMES's metrics.

The files are found by a glob, such as `runs/*/*/results*.json`; the trial is what its first
wildcard stands for. What a task measures becomes the loss `task/<task>/<metric>`.

- lm-eval writes `results_<date>.json`, and with --log_samples `samples_<task>_<date>.jsonl` beside
  it, which has ln p of each choice: its bits per byte are the gold answer's, over the bytes of the
  continuation, averaged over the samples. A task without such samples, or whose contexts differ
  by choice, which hides the gold one, has its metrics as they are.
- OLMES writes `metrics.json`, of one task, or of several in `tasks`.

Where a task is in several files of a trial, the newest counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mixopt.config import HIGHER, task_column
from mixopt.errors import TrialsError
from mixopt.system import is_glob, read_json
from mixopt.trials.cells import CellTable

Harness = Literal["lm-eval", "olmes"]
LONGEST_LINE = 1 << 26  # bytes of a sample
# What OLMES calls what mixopt measures too.
OURS = {"bits_per_byte_corr": "bits_per_byte", "norm_correct_prob": "choice_probability"}
# Of OLMES's metrics, which say nothing of what is better, those of which lower is.
LOWER = ("bits_per_byte", "perplexity", "loss", "logits_per")


@dataclass(frozen=True)
class Evaluations:
    """The results of evaluation harnesses.

    Attributes:
        pattern: Where the files are.
        values: Of each trial, the value of each loss.
        higher: Losses of which higher is better, though their names do not show it.
        notes: What a reader should know, a line each.
    """

    pattern: str
    values: Mapping[str, Mapping[str, float]]
    higher: tuple[str, ...]
    notes: tuple[str, ...]

    def table(self, key: str = "trial") -> CellTable:
        """Return a row for each trial, and a column for each loss; empty where it has none."""
        names = sorted({name for found in self.values.values() for name in found})
        rows = [
            (trial, *(repr(found[name]) if name in found else "" for name in names))
            for trial, found in self.values.items()
        ]
        return CellTable(Path(self.pattern), (key, *names), tuple(rows))


@dataclass(frozen=True)
class _TaskResult:
    """What a file has of a task."""

    date: float
    metrics: Mapping[str, float]
    higher: frozenset[str]


def read_evaluations(pattern: str, harness: Harness) -> Evaluations:
    """Read the files that a glob finds.

    Args:
        pattern: A path whose first wildcard stands for the name of the trial.
        harness: Who wrote them.

    Raises:
        TrialsError: There are none, one is damaged, or no file of this harness.
    """
    newest: dict[str, dict[str, _TaskResult]] = {}
    notes: list[str] = []
    read = _lm_eval if harness == "lm-eval" else _olmes
    for trial, path in _files(pattern):
        own = newest.setdefault(trial, {})
        for task, result in read(path):
            if task in own:
                notes.append(f"{path}: task {task!r} of {trial!r} is in several files")
            if task not in own or result.date >= own[task].date:
                own[task] = result
    values: dict[str, dict[str, float]] = {}
    higher: set[str] = set()
    for trial, tasks in newest.items():
        values[trial] = {
            task_column(task, metric): value
            for task, result in tasks.items()
            for metric, value in result.metrics.items()
        }
        higher |= {task_column(task, m) for task, one in tasks.items() for m in one.higher}
    unsaid = sorted(name for name in higher if name.rpartition("/")[2] not in HIGHER)
    return Evaluations(pattern, values, tuple(unsaid), tuple(notes))


def _files(pattern: str) -> Iterator[tuple[str, Path]]:
    """Give the files and the names of their trials, in order."""
    parts = Path(pattern).expanduser().parts
    first = next((place for place, part in enumerate(parts) if is_glob(part)), None)
    if first is None:
        raise TrialsError(
            f"{pattern!r}: give a glob whose first wildcard is the trial, such as"
            " 'runs/*/*/results*.json'"
        )
    root = Path(*parts[:first])
    paths = sorted(path for path in root.glob("/".join(parts[first:])) if path.is_file())
    if not paths:
        raise TrialsError(f"{pattern}: matches no file (working directory {Path.cwd()})")
    if first == len(parts) - 1:
        yield from ((path.stem, path) for path in paths)
        return
    for path in paths:
        yield path.parts[first], path


def _lm_eval(path: Path) -> Iterator[tuple[str, _TaskResult]]:
    content = read_json(path, error=TrialsError)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise TrialsError(f"{path}: is not a file of lm-eval's results: it has no 'results'")
    date = _number(content.get("date")) or 0.0
    groups = {name for name, own in (content.get("group_subtasks") or {}).items() if own}
    higher = content.get("higher_is_better") or {}
    for task, own in results.items():
        if task in groups or not isinstance(own, dict):
            continue
        bits = _bits_per_byte(path, task)
        if bits is not None:
            yield task, _TaskResult(date, {"bits_per_byte": bits}, frozenset())
            continue
        metrics = dict(_plain_metrics(own))
        better = {name for name, which in (higher.get(task) or {}).items() if which}
        yield task, _TaskResult(date, metrics, frozenset(better & set(metrics)))


def _plain_metrics(own: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Give the metrics of a task, which lm-eval calls `metric,filter`."""
    names = [name.partition(",")[0] for name in own]
    for key, value in own.items():
        name, comma, how = key.partition(",")
        number = _number(value)
        if not comma or name.endswith("_stderr") or number is None:
            continue
        yield (name if names.count(name) == 1 else f"{name}:{how}"), number


def _bits_per_byte(path: Path, task: str) -> float | None:
    """Return a task's bits per byte by its samples; None where there are none with ln p."""
    date = path.name.removeprefix("results_").removesuffix(".json")
    samples = path.with_name(f"samples_{task}_{date}.jsonl")
    if not samples.is_file():
        return None
    found: dict[Any, float] = {}
    try:
        with samples.open("rb") as stream:
            for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
                row = json.loads(line)
                if row["doc_id"] not in found:  # one sample has a line for each filter
                    bits = _bits_of(row)
                    if bits is None:
                        return None
                    found[row["doc_id"]] = bits
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise TrialsError(f"{samples}: cannot be read: {type(error).__name__}: {reason}") from error
    return math.fsum(found.values()) / len(found) if found else None


def _bits_of(row: Mapping[str, Any]) -> float | None:
    """Return a sample's bits per byte of the gold answer; None where it was not scored so."""
    arguments, answers = list(row["arguments"].values()), row["resps"]
    if not all(isinstance(one, dict) and isinstance(one.get("arg_1"), str) for one in arguments):
        return None
    if len(arguments) == 1:
        gold = 0
    else:
        choices = len(arguments) // (2 if "acc_mutual_info" in row.get("metrics", ()) else 1)
        target = str(row["target"])
        if not target.isdecimal() or int(target) >= choices:
            return None
        gold = int(target)
    logarithm = float(answers[gold][0][0])
    size = len(arguments[gold]["arg_1"].encode())
    return -logarithm / (size * math.log(2)) if size else None


def _olmes(path: Path) -> Iterator[tuple[str, _TaskResult]]:
    content = read_json(path, error=TrialsError)
    tasks = content.get("tasks", [content]) if isinstance(content, dict) else None
    if not isinstance(tasks, list):
        raise TrialsError(f"{path}: is not a file of OLMES's metrics")
    for place, one in enumerate(tasks):
        metrics = one.get("metrics") if isinstance(one, dict) else None
        name = _olmes_name(one) if isinstance(metrics, dict) else None
        if not isinstance(metrics, dict) or not isinstance(name, str):
            raise TrialsError(f"{path}: task {place}: has no 'task_name' with 'metrics'")
        numbers = {str(OURS.get(m, m)): _number(value) for m, value in metrics.items()}
        kept = {metric: value for metric, value in numbers.items() if value is not None}
        better = frozenset(m for m in kept if not any(word in m for word in LOWER))
        yield name, _TaskResult(0.0, kept, better)


def _olmes_name(one: Mapping[str, Any]) -> Any:
    about = (one.get("task_config") or {}).get("metadata") or {}
    return about.get("alias") or one.get("alias") or one.get("task_name")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e100 else None
