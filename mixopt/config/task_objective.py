"""Tasks in an objective: `task/<name>` is its own metric, `family/<name>` the mean of a family.

A mean that names families is a mean of families: each is averaged first, so that one of fifty
tasks counts no more than one of two. What it names besides is a family of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mixopt.config.objective_section import FamilyConfig, ObjectiveConfig
from mixopt.config.task_names import FAMILY, TASK, UNIT_OF, task_column, task_metric
from mixopt.config.tasks_section import TasksConfig
from mixopt.errors import did_you_mean
from mixopt.system import is_glob


def with_tasks(objective: ObjectiveConfig, tasks: TasksConfig | None) -> ObjectiveConfig:
    """Return the objective over names of losses alone.

    Args:
        objective: It may name tasks and their families.
        tasks: The tasks; None where there are none.

    Raises:
        ValueError: An unknown family, or one beside a glob in a mean.
    """
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
    return task_column(task, tasks.metrics(task)[0])


def mixed_units(objective: ObjectiveConfig, losses: Iterable[str]) -> str | None:
    """Say what is wrong where tasks are measured beside what is in another unit.

    Args:
        objective: The objective.
        losses: What it measures.
    """
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
    return of_domains if task is None else UNIT_OF.get(task[1], task[1])
