"""The sections `objective:` and `tasks:`: the objective over losses and downstream tasks."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mixopt.config.sections import (
    Above,
    Fault,
    Location,
    Positive,
    Section,
    one_given,
    optional,
    pattern_faults,
)
from mixopt.config.task_names import BITS_PER_BYTE, FAMILY, TASK, task_column, task_metric
from mixopt.errors import ConfigError, did_you_mean
from mixopt.system import choice_fault, chosen, dotted, given_by, is_glob, one_value, under_folder

KIND = "evaluation domain"
# Names of external evaluation harnesses for metrics where higher is better.
HIGHER = {
    "acc",
    "acc_mutual_info",
    "acc_norm",
    "acc_per_byte",
    "acc_per_char",
    "acc_per_token",
    "acc_raw",
    "acc_uncond",
    "accuracy",
    "choice_log_probability",
    "choice_probability",
    "correct_prob",
    "em",
    "exact_match",
    "f1",
    "margin",
    "mcc",
    "pass@1",
    "primary_score",
}
Kind = Literal["target", "mean", "worst", "hinge"]


def _task_fields(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class TaskSetConfig(Section):
    """One task: a file of items, and its family."""

    path: str = Field(description="items, one JSON object per line; .gz and .zst too")
    family: str | None = optional("tasks of one family are averaged first")


class TasksConfig(Section):
    """Tasks that each trial is scored on, at the end and at `proxy.eval_every`."""

    sets: dict[str, Annotated[TaskSetConfig, BeforeValidator(_task_fields)]] = Field(
        description="by name: a file of items, or its path and family", min_length=1
    )
    root: str | None = optional("folder or URL of relative paths; default: working directory")
    items: Positive = Field(
        200, description="maximum items of each task, chosen by a hash of their ids"
    )

    def columns(self) -> Iterator[str]:
        """Return the names of the task metrics, `task/<name>/bits_per_byte`."""
        return (task_column(name, BITS_PER_BYTE) for name in self.sets)

    def path(self, name: str) -> str:
        """Return the path of the items of a task."""
        path = self.sets[name].path
        return path if self.root is None else under_folder(self.root, path)

    def losses_of(self, name: str) -> tuple[str, ...]:
        """Return the losses of `task/<name>` or `family/<name>`; any other name is its own loss."""
        task = name.removeprefix(TASK)
        if name.startswith(TASK) and task in self.sets:
            return (task_column(task, BITS_PER_BYTE),)
        if not name.startswith(FAMILY):
            return (name,)
        family = name.removeprefix(FAMILY)
        members = [task for task, entry in self.sets.items() if entry.family == family]
        if not members:
            families = {entry.family for entry in self.sets.values() if entry.family is not None}
            hint = did_you_mean(family, families) or "; no task has a family"
            raise ValueError(f"no task has the family {family!r}{hint}")
        return tuple(task_column(task, BITS_PER_BYTE) for task in members)


class FamilyConfig(Section):
    """Losses that have one weight together."""

    weight: Above = Field(1.0, description="weight relative to the other families")
    mean: dict[str, Above] = Field(
        description="weights by evaluation domain or glob, within the family", min_length=1
    )


class ObjectiveConfig(Section):
    """The objective: exactly one of target, mean, worst, families and hinge."""

    target: str | None = optional("one evaluation domain")
    mean: dict[str, Above] | None = optional(
        "weights by evaluation domain or glob; those of several globs add up"
    )
    worst: list[str] | None = Field(
        None, description="the largest loss among these; globs too", min_length=1
    )
    families: dict[str, FamilyConfig] | None = Field(
        None, min_length=1, description="by name: losses that are averaged first, and their weight"
    )
    hinge: str | None = Field(
        None,
        description="a target, plus the largest excess of another loss over the average trial"
        " beyond its noise",
    )
    unit: Literal["nats_per_token", "bits_per_byte"] = Field(
        "bits_per_byte", description="unit of losses of text"
    )
    direction: dict[str, Literal["lower", "higher"]] = Field(
        default_factory=dict, description="better direction, by name or glob; lower if omitted"
    )
    items: dict[str, Positive] = Field(
        default_factory=dict,
        description="number of questions of a share of right answers, by name or glob",
    )
    scale: Literal["none", "spread"] = Field(
        "none", description="spread: divide each loss of a mean by its spread over the trials"
    )
    noise: Literal["leave_out", "allow"] | None = optional(
        "losses that vary less over trials than over replicates: leave_out or allow;"
        " if omitted, such tasks are an error"
    )

    @property
    def patterns(self) -> list[str]:
        """Names and globs of the minimised losses."""
        patterns = [pattern for _, pattern in _patterns(self)]
        if self.hinge is not None:
            patterns.append("*")
        return patterns

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        kind = one_given(self, "target", "mean", "worst", "families", "hinge")
        if self.scale == "spread" and kind not in ("mean", "families"):
            raise ValueError(f"scale: spread applies to a mean of losses, not to {kind}")
        return self


def with_tasks(objective: ObjectiveConfig, tasks: TasksConfig | None) -> ObjectiveConfig:
    """Return the objective with names of tasks and families replaced by names of losses."""
    if tasks is None:
        return objective

    changes: dict[str, Any] = {}
    minimised = objective.mean or {}
    if objective.target is not None:
        minimised = {objective.target: 1.0}
    if any(name.startswith(FAMILY) for name in minimised):
        changes["families"] = _families(minimised, tasks)
        changes["mean"] = None
        changes["target"] = None
    elif objective.target is not None:
        changes["target"] = tasks.losses_of(objective.target)[0]
    elif objective.mean is not None:
        changes["mean"] = _by_loss(objective.mean, tasks)
    elif objective.families is not None:
        changes["families"] = {
            name: family.model_copy(update={"mean": _by_loss(family.mean, tasks)})
            for name, family in objective.families.items()
        }
    elif objective.worst is not None:
        changes["worst"] = list(_by_loss(dict.fromkeys(objective.worst), tasks))
    elif objective.hinge is not None:
        changes["hinge"] = tasks.losses_of(objective.hinge)[0]
    changes["direction"] = _by_loss(objective.direction, tasks)
    return objective.model_copy(update=changes)


def _by_loss(values: Mapping[str, Any], tasks: TasksConfig) -> dict[str, Any]:
    """Return values by loss, from values by name of a task, a family or a loss."""
    by_loss: dict[str, Any] = {}
    for name, value in values.items():
        by_loss |= dict.fromkeys(tasks.losses_of(name), value)
    return by_loss


def _families(weights: Mapping[str, float], tasks: TasksConfig) -> dict[str, FamilyConfig]:
    """Return the family of each name of a mean; a single loss forms its own family."""
    families: dict[str, FamilyConfig] = {}
    for name, weight in weights.items():
        if is_glob(name):
            raise ValueError(
                f"{name!r} is a glob, which cannot be combined with family/ names; use"
                " objective.families, where each has a name and a mean"
            )
        members = dict.fromkeys(tasks.losses_of(name), 1.0)
        families[name.removeprefix(FAMILY)] = FamilyConfig(weight=weight, mean=members)
    return families


@dataclass(frozen=True)
class ChosenLosses:
    """The losses of an objective, by name."""

    kind: Kind
    weights: Mapping[str, float]
    families: Mapping[str, tuple[str, ...]]
    higher: tuple[str, ...]
    items: Mapping[str, int]


def chosen_losses(config: ObjectiveConfig, evaluation: Sequence[str]) -> ChosenLosses:
    """Return the losses that an objective's names and globs match, and their weights."""
    for place, message in objective_faults(config, evaluation):
        raise ConfigError(f"{dotted(place)}: {message}")
    items = one_value(config.items, evaluation, "objective.items", KIND)
    families: dict[str, tuple[str, ...]] = {}
    kind: Kind = "mean"
    if config.target is not None:
        kind = "target"
        weights = {chosen(config.target, evaluation)[0]: 1.0}
    elif config.hinge is not None:
        kind = "hinge"
        target = chosen(config.hinge, evaluation)[0]
        weights = dict.fromkeys((target, *evaluation), 1.0)
    elif config.worst is not None:
        kind = "worst"
        matched = given_by(dict.fromkeys(config.worst, 1.0), evaluation)
        weights = dict.fromkeys(matched, 1.0)
    elif config.mean is not None:
        weights = _shares(_weights(config.mean, evaluation))
    else:
        members = _members(config, evaluation)
        weights = _family_weights(config, members)
        families = {family: tuple(inner) for family, inner in members.items()}
    return ChosenLosses(kind, weights, families, _higher(config, evaluation), items)


def _family_weights(
    config: ObjectiveConfig, members: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Return the weight of each loss: its share in its family x the share of the family."""
    shares = _shares({name: family.weight for name, family in (config.families or {}).items()})
    weights: dict[str, float] = {}
    for family, inner in members.items():
        for name, share in _shares(inner).items():
            weights[name] = shares[family] * share
    return weights


def _higher(config: ObjectiveConfig, evaluation: Sequence[str]) -> tuple[str, ...]:
    """Return the losses of which higher is better: as stated, as questions, or by metric."""
    better: dict[str, str] = {}
    for name in evaluation:
        task = task_metric(name)
        if task is not None and task[1] in HIGHER:
            better[name] = "higher"
    better |= dict.fromkeys(given_by(config.items, evaluation), "higher")
    better |= one_value(config.direction, evaluation, "objective.direction", KIND)
    return tuple(name for name in evaluation if better.get(name) == "higher")


def objective_faults(config: ObjectiveConfig, evaluation: Sequence[str]) -> Iterator[Fault]:
    """Yield faults: unknown names, globs without a match, and globs that disagree."""
    faults: list[Fault] = []
    for place, pattern in _patterns(config):
        fault = choice_fault(pattern, evaluation, KIND)
        if fault:
            faults.append((place, fault))
    for name in ("direction", "items"):
        faults += pattern_faults(("objective", name), getattr(config, name), evaluation, KIND)
    yield from faults
    if faults:
        return
    if config.target is not None:
        yield from _single_faults("target", config.target, evaluation)
    if config.hinge is not None:
        yield from _single_faults("hinge", config.hinge, evaluation)
    yield from _unit_faults(config, evaluation)
    yield from _family_faults(config, evaluation)


def _single_faults(kind: Kind, pattern: str, evaluation: Sequence[str]) -> Iterator[Fault]:
    """Yield a fault if a glob matches several losses where one is needed."""
    names = chosen(pattern, evaluation)
    if len(names) > 1:
        message = (
            f"{pattern!r} matches {len(names)} evaluation domains, such as {names[0]!r} and"
            f" {names[1]!r}; for their mean: mean: {{{pattern!r}: 1}}"
        )
        yield ("objective", kind), message


def _unit_faults(config: ObjectiveConfig, evaluation: Sequence[str]) -> Iterator[Fault]:
    """Yield faults of families that mix losses and shares of right answers, in two units."""
    items = given_by(config.items, evaluation)
    higher = _higher(config, evaluation)
    for family, weights in _members(config, evaluation).items():
        losses = [name for name in weights if name not in items and name not in higher]
        shares = [name for name in weights if name in items]
        if losses and shares and config.scale != "spread":
            message = (
                f"{shares[0]!r} is a share of right answers and {losses[0]!r} a loss: two units in"
                " one family; use scale: spread, or direction: higher if both are shares"
            )
            yield ("objective", "families", family), message


def _patterns(config: ObjectiveConfig) -> Iterator[tuple[Location, str]]:
    """Yield every pattern of the minimised losses with its field."""
    if config.target is not None:
        yield ("objective", "target"), config.target
    if config.hinge is not None:
        yield ("objective", "hinge"), config.hinge
    for pattern in config.worst or ():
        yield ("objective", "worst"), pattern
    for pattern in config.mean or ():
        yield ("objective", "mean", pattern), pattern
    for family, inner in (config.families or {}).items():
        for pattern in inner.mean:
            yield ("objective", "families", family, "mean", pattern), pattern


def _family_faults(config: ObjectiveConfig, evaluation: Sequence[str]) -> Iterator[Fault]:
    members = _members(config, evaluation)
    for name in evaluation:
        owners = [family for family, weights in members.items() if name in weights]
        if len(owners) > 1:
            is_named = name in (config.families or {})[owners[0]].mean
            hint = "keep it in one" if is_named else "name it in the family that it belongs to"
            yield "objective.families", f"{name!r} is in {owners[0]!r} and in {owners[1]!r}; {hint}"
            return
    for family, weights in members.items():
        if not weights:
            message = "other families name every loss that it matches; remove it"
            yield ("objective", "families", family), message


def _members(config: ObjectiveConfig, evaluation: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the weights of each family: of losses that it names, or only globs match."""
    patterns = {family: inner.mean for family, inner in (config.families or {}).items()}
    named = set(itertools.chain.from_iterable(patterns.values()))
    members: dict[str, dict[str, float]] = {}
    for family, mean in patterns.items():
        weights = _weights(mean, evaluation)
        members[family] = {
            name: weight for name, weight in weights.items() if name in mean or name not in named
        }
    return members


def _weights(patterns: Mapping[str, float], evaluation: Sequence[str]) -> dict[str, float]:
    """Return the weight of each loss that patterns match; weights of several globs add up."""
    by_pattern = given_by(patterns, evaluation)
    return {name: sum(weights.values()) for name, weights in by_pattern.items()}


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values()) or 1.0
    return {name: weight / total for name, weight in weights.items()}


def mixed_units(objective: ObjectiveConfig, losses: Iterable[str]) -> str | None:
    """Return an error if task metrics and losses have different units; None: no fault."""
    units: dict[str, str] = {}
    for name in losses:
        task = task_metric(name)
        units.setdefault(objective.unit if task is None else task[1], name)
    if len(units) < 2 or objective.scale == "spread" or objective.hinge is not None:
        return None
    names = list(units.values())  # the first loss of each unit
    return (
        f"{names[0]!r} and {names[1]!r} are in different units; use a mean with objective.scale:"
        " spread, or measure both in bits_per_byte"
    )
