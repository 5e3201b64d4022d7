"""The section `tasks:`: downstream tasks that each trial is scored on, and their metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mixopt.config.section import Positive, Section
from mixopt.config.task_names import task_column
from mixopt.system import under_folder

Metric = Literal["bits_per_byte", "choice_log_probability", "choice_probability", "accuracy"]
Normalisation = Literal["none", "characters", "bytes", "unconditional"]


class TaskSetConfig(Section):
    """One task: a file of items, and how it counts."""

    path: str = Field(description="items, one JSON object per line; .gz and .zst too")
    family: str | None = Field(None, description="tasks of one family are averaged first")
    metric: Metric | tuple[Metric, ...] | None = Field(
        None, description="overrides tasks.metric; of several, the first is the task's own"
    )
    normalisation: Normalisation | None = Field(None, description="overrides tasks.normalisation")
    items: Positive | None = Field(None, description="overrides tasks.items")


class TasksConfig(Section):
    """Tasks that each trial is scored on, at the end and at `proxy.eval_every`."""

    sets: dict[str, TaskSetConfig] = Field(
        description="by name: a file of items, or its path and how it counts", min_length=1
    )
    root: str | None = Field(
        None, description="folder or URL of relative paths; the working directory"
    )
    items: Positive = Field(
        200,
        description="maximum items of each task, chosen by a hash of their ids, the same for every "
        "trial",
    )
    metric: Metric | tuple[Metric, ...] = Field(
        "bits_per_byte",
        description="bits_per_byte of the gold answer, choice_log_probability,"
        " choice_probability, accuracy, or several",
    )
    normalisation: Normalisation = Field(
        "characters", description="choices are compared by ln p divided by this"
    )
    drop_overlap: bool | None = Field(
        None, description="true: leave out training documents that contain answers of items"
    )

    @field_validator("sets", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        """Take a path alone for a set."""
        if not isinstance(value, dict):
            return value
        return {n: {"path": one} if isinstance(one, str) else one for n, one in value.items()}

    @model_validator(mode="after")
    def _some_metric(self) -> TasksConfig:
        for given in (self.metric, *(one.metric for one in self.sets.values())):
            if isinstance(given, tuple) and (not given or len(set(given)) < len(given)):
                raise ValueError("name at least one metric, and each only once")
        return self

    def metrics(self, name: str) -> tuple[Metric, ...]:
        """Return the metrics of a task; the first is the task's own."""
        given = self.sets[name].metric or self.metric
        return (given,) if isinstance(given, str) else given

    def columns(self) -> Iterator[str]:
        """Yield the names of all tasks' metrics, `task/<name>/<metric>`."""
        for name in self.sets:
            yield from (task_column(name, metric) for metric in self.metrics(name))

    def path(self, name: str) -> str:
        """Return where the items of a task are."""
        path = self.sets[name].path
        return path if self.root is None else under_folder(self.root, path)

    @property
    def families(self) -> dict[str, tuple[str, ...]]:
        """Names of the metrics of each family's tasks, by family; each task by its own metric."""
        found: dict[str, tuple[str, ...]] = {}
        for name, one in self.sets.items():
            if one.family is not None:
                own = task_column(name, self.metrics(name)[0])
                found[one.family] = (*found.get(one.family, ()), own)
        return found
