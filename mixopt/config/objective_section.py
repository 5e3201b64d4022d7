"""The sections `objective:` and `tasks:`: what is minimised, over losses and downstream tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mixopt.config.section import Positive, Section
from mixopt.config.task_names import BITS_PER_BYTE, FAMILY, TASK, task_column, task_metric
from mixopt.errors import did_you_mean
from mixopt.system import is_glob, under_folder


class TaskSetConfig(Section):
    """One task: a file of items, and how it counts."""

    path: str = Field(description="items, one JSON object per line; .gz and .zst too")
    family: str | None = Field(None, description="tasks of one family are averaged first")
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

    @field_validator("sets", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        """Take a path alone for a set."""
        if not isinstance(value, dict):
            return value
        return {n: {"path": one} if isinstance(one, str) else one for n, one in value.items()}

    def columns(self) -> Iterator[str]:
        """Give the names of what the tasks measure, `task/<name>/bits_per_byte`."""
        return (task_column(name, BITS_PER_BYTE) for name in self.sets)

    def path(self, name: str) -> str:
        """Return where the items of a task are."""
        path = self.sets[name].path
        return path if self.root is None else under_folder(self.root, path)

    @property
    def families(self) -> dict[str, tuple[str, ...]]:
        """Names of what each family's tasks measure, by family."""
        found: dict[str, tuple[str, ...]] = {}
        for name, one in self.sets.items():
            if one.family is not None:
                own = task_column(name, BITS_PER_BYTE)
                found[one.family] = (*found.get(one.family, ()), own)
        return found


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
KINDS = ("target", "mean", "worst", "families")


class FamilyConfig(Section):
    """Losses that count together, however many they are."""

    weight: Weight = Field(1.0, description="of the family, relative to the other families")
    mean: dict[str, Weight] = Field(
        description="weights by evaluation domain or glob, within the family", min_length=1
    )


class ObjectiveConfig(Section):
    """The objective: exactly one of target, mean, worst and families."""

    target: str | None = Field(None, description="one evaluation domain")
    mean: dict[str, Weight] | None = Field(
        None,
        description="weights by evaluation domain or glob, such as mmlu_*; those of several "
        "globs add up",
    )
    worst: list[str] | None = Field(
        None, description="the largest loss among these; globs too", min_length=1
    )
    families: dict[str, FamilyConfig] | None = Field(
        None,
        description="by name: losses that are averaged first, and the family's weight",
        min_length=1,
    )
    unit: Literal["nats_per_token", "bits_per_byte"] = "bits_per_byte"
    direction: dict[str, Literal["lower", "higher"]] = Field(
        default_factory=dict,
        description="by evaluation domain or glob, whether higher or lower is better; lower if "
        "omitted",
    )
    scale: Literal["none", "spread"] = Field(
        "none", description="spread: divide each loss of a mean by its spread over the trials"
    )

    leave_out: Literal["noise"] | None = Field(
        None,
        description="noise: leave out losses that vary less between trials than between replicates",
    )
    allow_noise: bool | None = Field(
        None, description="true: minimise tasks even where the differences between trials are noise"
    )

    @property
    def patterns(self) -> list[str]:
        """Names and globs of the minimised losses."""
        alone = [] if self.target is None else [self.target]
        inside = [name for family in (self.families or {}).values() for name in family.mean]
        return [*alone, *(self.worst or ()), *(self.mean or ()), *inside]

    @model_validator(mode="after")
    def _one_objective(self) -> ObjectiveConfig:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; got {given or 'none'}")
        if self.scale == "spread" and self.mean is None and self.families is None:
            raise ValueError(f"scale: spread is for a mean of losses, not for {given[0]}")
        return self


def with_tasks(objective: ObjectiveConfig, tasks: TasksConfig | None) -> ObjectiveConfig:
    """Return the objective over names of losses alone."""
    if tasks is None:
        return objective
    named: dict[str, Any] = {"direction": _whole(objective.direction, tasks)}
    if objective.target is not None and objective.target.startswith(FAMILY):
        named |= {"target": None, "families": _family_of({objective.target: 1.0}, tasks)}
    elif objective.target is not None:
        named["target"] = _own(objective.target, tasks)
    elif objective.worst is not None:
        members = [one for name in objective.worst for one in _members(name, tasks)]
        named["worst"] = list(dict.fromkeys(members))
    elif objective.mean is not None and any(name.startswith(FAMILY) for name in objective.mean):
        named |= {"mean": None, "families": _family_of(objective.mean, tasks)}
    elif objective.mean is not None:
        named["mean"] = _whole(objective.mean, tasks)
    for name, family in (objective.families or {}).items():
        named.setdefault("families", {})[name] = family.model_copy(
            update={"mean": _inside(family.mean, tasks)}
        )
    return objective.model_copy(update=named)


def _family_of(weights: dict[str, float], tasks: TasksConfig) -> dict[str, FamilyConfig]:
    found = {}
    for name, weight in weights.items():
        if is_glob(name):
            raise ValueError(
                f"{name!r} is a glob beside families; give objective.families, where each has a"
                " name and a mean"
            )
        members = _members(name, tasks)
        found[name.removeprefix(FAMILY)] = FamilyConfig(
            weight=weight, mean=dict.fromkeys(members, 1.0)
        )
    return found


def _inside(weights: dict[str, float], tasks: TasksConfig) -> dict[str, float]:
    return {one: weight for name, weight in weights.items() for one in _members(name, tasks)}


def _members(name: str, tasks: TasksConfig) -> tuple[str, ...]:
    """Return the losses that a name stands for: a family's, or itself."""
    if not name.startswith(FAMILY):
        return (_own(name, tasks),)
    family, known = name.removeprefix(FAMILY), tasks.families
    if family not in known:
        hint = did_you_mean(family, known) or "; no task has a family"
        raise ValueError(f"no task is of the family {family!r}{hint}")
    return known[family]


def _whole(weights: dict[str, Any], tasks: TasksConfig) -> dict[str, Any]:
    return {_own(name, tasks): value for name, value in weights.items()}


def _own(name: str, tasks: TasksConfig) -> str:
    """Return the loss that `task/<name>` stands for; any other name is itself."""
    task = name.removeprefix(TASK)
    if not name.startswith(TASK) or task not in tasks.sets:
        return name
    return task_column(task, BITS_PER_BYTE)


def mixed_units(objective: ObjectiveConfig, losses: Iterable[str]) -> str | None:
    """Say what is wrong where tasks are measured beside what is in another unit."""
    names = list(losses)
    if objective.scale == "spread" or not any(name.startswith(TASK) for name in names):
        return None
    units = {_unit(name, objective.unit): name for name in reversed(names)}
    if len(units) == 1:
        return None
    first, second = list(units.values())[:2]
    return (
        f"{first!r} and {second!r} are in different units; use a mean with objective.scale: spread,"
        " or measure both in bits_per_byte"
    )


def _unit(loss: str, of_domains: str) -> str:
    task = task_metric(loss)
    return of_domains if task is None else task[1]
