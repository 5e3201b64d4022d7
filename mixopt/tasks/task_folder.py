"""A folder of tasks: a file of items for each, and their settings in `tasks.yaml`.

arc.jsonl            a task is called what its file is; .jsonl, .jsonl.gz and .jsonl.zst
humaneval.jsonl.gz
tasks.yaml           optional: arc: {family: knowledge, metric: accuracy, source: ..., licence: ...}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixopt.config import Metric, Normalisation
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import FileShape, check_name, checked_as, read_yaml
from mixopt.tasks.items import Item, read_items

ABOUT = "tasks.yaml"
ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")


class TaskNotes(FileShape):
    """What `tasks.yaml` has of a task.

    Attributes:
        family: Tasks of one family are averaged first.
        metric: What is measured; of several the first is the task's own.
        normalisation: What choices are compared by.
        source: Where the items are from.
        licence: Theirs.
    """

    family: str | None = None
    metric: Metric | tuple[Metric, ...] = "bits_per_byte"
    normalisation: Normalisation = "characters"
    source: str | None = None
    licence: str | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is measured; the first is the task's own."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric


@dataclass(frozen=True)
class FolderTask:
    """A task of a folder.

    Attributes:
        name: That of its file, without the ending.
        path: The file of its items.
        notes: What `tasks.yaml` has of it.
    """

    name: str
    path: Path
    notes: TaskNotes = field(default_factory=TaskNotes)

    def items(self) -> Iterator[Item]:
        """Give the items, in the order of the file (`read_items`)."""
        return read_items(self.path)


def read_task_folder(folder: str | Path) -> dict[str, FolderTask]:
    """Find the tasks of a folder; their items are not read yet.

    Returns:
        The tasks by name, in the order of their names.

    Raises:
        ConfigError: There is no such folder or no task in it, two files are of one task, or
            `tasks.yaml` names a task without a file, or has what it should not.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder (working directory {Path.cwd()})")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((one for one in ENDINGS if path.name.endswith(one)), None)
        if ending is None or path.name.startswith("."):
            continue
        name = check_name(path.name.removesuffix(ending), "task")
        if name in found:
            raise ConfigError(
                f"{path}: {found[name].name} is task {name!r} too; remove one of them"
            )
        found[name] = path
    if not found:
        endings = ", ".join(f"*{one}" for one in ENDINGS)
        raise ConfigError(f"{folder}: has no tasks; one file for each, {endings}")
    notes = _notes(folder / ABOUT, found)
    return {
        name: FolderTask(name, path, notes.get(name, TaskNotes())) for name, path in found.items()
    }


def _notes(path: Path, tasks: dict[str, Path]) -> dict[str, TaskNotes]:
    if not path.exists():
        return {}
    content: Any = read_yaml(path, error=ConfigError) or {}
    notes = checked_as(dict[str, TaskNotes], content, str(path), error=ConfigError)
    for name, one in notes.items():
        if name not in tasks:
            raise ConfigError(
                f"{path}: {name}: has no file of items beside it{did_you_mean(name, tasks)}"
            )
        if not one.metrics or len(set(one.metrics)) < len(one.metrics):
            raise ConfigError(
                f"{path}: {name}.metric: name at least one metric, and each only once"
            )
    return notes
