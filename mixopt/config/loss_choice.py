"""Resolve an objective to losses by name: globs, families and directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mixopt.config.objective_section import ObjectiveConfig
from mixopt.config.task_names import HIGHER, task_metric
from mixopt.errors import ConfigError
from mixopt.system import choice_fault, chosen, given_by, one_value, value_fault

KIND = "evaluation domain"
Place = tuple[str, ...]
Fault = tuple[
    Place, str | None, str
]  # the field, the pattern in it where it has keys, what is wrong


@dataclass(frozen=True)
class ChosenLosses:
    """What an objective is made of, by name."""

    kind: Literal["target", "mean", "worst"]
    weights: Mapping[str, float]
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    higher: tuple[str, ...] = ()


def chosen_losses(config: ObjectiveConfig, evaluation: Sequence[str]) -> ChosenLosses:
    """Return the losses that a configuration chooses."""
    for place, _, message in objective_faults(config, evaluation):
        raise ConfigError(f"{'.'.join(place)}: {message}")
    directions = {name: _usual_direction(name) for name in evaluation}
    directions |= one_value(config.direction, evaluation, "objective.direction", KIND)
    higher = tuple(name for name, which in directions.items() if which == "higher")
    if config.families is not None:
        members = _members(_means(config), evaluation)
        shares = {name: family.weight for name, family in config.families.items()}
        families = {family: tuple(inner) for family, inner in members.items()}
        return ChosenLosses("mean", _of_families(members, shares), families, higher)
    if config.mean is not None:
        return ChosenLosses("mean", _shares(_weights(config.mean, evaluation)), higher=higher)
    if config.target is not None:
        return ChosenLosses("target", {chosen(config.target, evaluation)[0]: 1.0}, higher=higher)
    found = _weights(dict.fromkeys(config.worst or (), 1.0), evaluation)
    return ChosenLosses("worst", dict.fromkeys(found, 1.0), higher=higher)


def _usual_direction(loss: str) -> str:
    task = task_metric(loss)
    return "higher" if task is not None and task[1] in HIGHER else "lower"


def objective_faults(config: ObjectiveConfig, evaluation: Sequence[str]) -> Iterator[Fault]:
    """Find names that are not there, globs that match nothing, and what two globs disagree on."""
    unmatched = False
    for place, pattern, is_key in _patterns(config):
        fault = choice_fault(pattern, evaluation, KIND)
        if fault is not None:
            unmatched = True
            yield place, pattern if is_key else None, fault
    if unmatched:
        return
    found = () if config.target is None else chosen(config.target, evaluation)
    if len(found) > 1:
        message = (
            f"{config.target!r} matches {len(found)} evaluation domains, such as {found[0]!r} and"
            f" {found[1]!r}; for their mean: mean: {{{config.target!r}: 1}}"
        )
        yield ("objective", "target"), None, message
    fault = value_fault(config.direction, evaluation)
    if fault is not None:
        yield ("objective", "direction"), None, fault
    yield from _family_faults(_means(config), evaluation)


def _patterns(config: ObjectiveConfig) -> Iterator[tuple[Place, str, bool]]:
    """Yield every pattern of an objective: its field, and whether it is a key there."""
    if config.target is not None:
        yield ("objective", "target"), config.target, False
    for pattern in config.worst or ():
        yield ("objective", "worst"), pattern, False
    for pattern in config.mean or ():
        yield ("objective", "mean"), pattern, True
    for family, patterns in _means(config).items():
        for pattern in patterns:
            yield ("objective", "families", family, "mean"), pattern, True
    for pattern in config.direction:
        yield ("objective", "direction"), pattern, True


def _means(config: ObjectiveConfig) -> dict[str, dict[str, float]]:
    return {name: family.mean for name, family in (config.families or {}).items()}


def _family_faults(
    means: Mapping[str, Mapping[str, float]], evaluation: Sequence[str]
) -> Iterator[Fault]:
    """Find losses that are in two families, and families that have none."""
    for name, owners in _owners(means, evaluation).items():
        if len(owners) > 1:
            first, second, *_ = owners
            named = name in means[first]
            mend = "name it in one" if named else "name it in the one that it belongs to"
            message = f"{name!r} is in {first!r} and in {second!r}; {mend}"
            yield ("objective", "families"), None, message
            return
    for family, weights in _members(means, evaluation).items():
        if not weights:
            message = "every loss that it matches is named by another family; leave it out"
            yield ("objective", "families", family), None, message


def _owners(
    means: Mapping[str, Mapping[str, float]], evaluation: Sequence[str]
) -> dict[str, list[str]]:
    """Return the families of each loss: those that name it, or else those whose globs match it."""
    found: dict[str, list[str]] = {}
    for family, patterns in means.items():
        for name in given_by(patterns, evaluation):
            found.setdefault(name, []).append(family)
    for name, families in found.items():
        found[name] = [one for one in families if name in means[one]] or families
    return found


def _members(
    means: Mapping[str, Mapping[str, float]], evaluation: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the weights inside each family."""
    owners = _owners(means, evaluation)
    return {
        family: {
            name: weight
            for name, weight in _weights(patterns, evaluation).items()
            if family in owners[name]
        }
        for family, patterns in means.items()
    }


def _weights(patterns: Mapping[str, float], evaluation: Sequence[str]) -> dict[str, float]:
    """Return the weight of each loss that patterns choose; those of several globs add up."""
    given = given_by(patterns, evaluation)
    return {name: sum(weights.values()) for name, weights in given.items()}


def _of_families(
    members: Mapping[str, Mapping[str, float]], shares: Mapping[str, float]
) -> dict[str, float]:
    whole = sum(shares.values())
    return {
        name: shares[family] / whole * share
        for family, weights in members.items()
        for name, share in _shares(weights).items()
    }


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values()) or 1.0
    return {name: weight / total for name, weight in weights.items()}
