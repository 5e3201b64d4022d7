"""A folder of tasks as tasks of lm-eval (EleutherAI's harness), which runs them without a network.

Of each task `<name>.yaml`, which lm-eval finds by `--include_path`, and `<name>.jsonl`, its items
in one form. Choices carry their own white space, so `target_delimiter` is empty. lm-eval knows no
weights of items, and no bits per byte of an answer: they follow from what `--log_samples` keeps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mixopt.errors import ConfigError
from mixopt.system import write_text
from mixopt.tasks import FolderTask, Item, read_task_folder

PREFIX = "mixopt_"  # apart from lm-eval's own tasks
_ACCURACY = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
_OF_CHOICES = [_ACCURACY, {**_ACCURACY, "metric": "acc_norm"}]


def export_lm_eval_tasks(folder: str | Path, out: str | Path) -> list[str]:
    """Write the tasks of a folder for lm-eval.

    Args:
        folder: Tasks (mixopt.tasks.task_folder).
        out: Where the files go; it is made. They name it, so export again where it is moved.

    Returns:
        What the tasks are called there, `mixopt_<name>`.

    Raises:
        ConfigError: Tasks cannot be read, or lm-eval has no form for one.
    """
    tasks = read_task_folder(folder)
    written = {name: _forms(task) for name, task in tasks.items()}
    out = Path(out).expanduser().resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name, (fields, rows) in written.items():
        path = out / f"{name}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        write_text(path, "".join(f"{line}\n" for line in lines))
        content = {
            "task": PREFIX + name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "target_delimiter": "",
            **fields,
        }
        write_text(out / f"{name}.yaml", yaml.safe_dump(content, sort_keys=False))
    return [PREFIX + name for name in written]


def _forms(task: FolderTask) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the fields of a task's YAML, and its items in the form that they read."""
    items = list(task.items())
    if all(len(item.choices) == 1 for item in items):
        return _answers(items)
    if all(len(set(item.contexts)) == 1 for item in items):
        return _choices(items)
    odd = next((item for item in items if len(set(item.choices)) > 1), None)
    if odd is not None:
        raise ConfigError(
            f"{task.path}: item {odd.id!r}: lm-eval has no form for a task whose contexts differ by"
            " choice while choices differ too; keep these items in a task apart"
        )
    return _contexts(items)


def _answers(items: Sequence[Item]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    fields = {
        "output_type": "loglikelihood",
        "doc_to_text": "context",
        "doc_to_target": "continuation",
        "metric_list": [_ACCURACY],  # its perplexity overflows where an answer has 700 nats
    }
    rows = [{"id": i.id, "context": i.contexts[0], "continuation": i.answer} for i in items]
    return fields, rows


def _choices(items: Sequence[Item]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    fields = {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": _OF_CHOICES,
    }
    rows = [
        {"id": i.id, "context": i.contexts[0], "choices": list(i.choices), "gold": i.gold}
        for i in items
    ]
    return fields, rows


def _contexts(items: Sequence[Item]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the form in which the context is what is chosen, as in WinoGrande."""
    fields = {
        "output_type": "multiple_choice",
        "doc_to_text": "gold",
        "doc_to_choice": "contexts",
        "doc_to_target": "continuation",
        "metric_list": _OF_CHOICES,
    }
    rows = [
        {"id": i.id, "contexts": list(i.contexts), "continuation": i.answer, "gold": i.gold}
        for i in items
    ]
    return fields, rows
