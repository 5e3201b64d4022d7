"""An objective given in Python or by options, resolved to existing losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixopt.config import ObjectiveConfig, checked
from mixopt.errors import ConfigError
from mixopt.objective import Direction, Objective, Scale, Unit
from mixopt.system import chosen

ObjectiveLike = str | Sequence[str] | Mapping[str, float] | ObjectiveConfig | Objective


def asked_patterns(objective: ObjectiveLike | None) -> dict[str, float]:
    """Return the names and globs that are asked for, with their weights; none where all are meant.

    Raises:
        ConfigError: It is nothing that names losses.
    """
    if objective is None:
        return {}
    if isinstance(objective, Objective):
        return dict(objective.weights)
    if isinstance(objective, ObjectiveConfig):
        return dict.fromkeys(objective.patterns, 1.0)
    names = [objective] if isinstance(objective, str) else objective
    if not isinstance(names, (Mapping, Sequence)) or not all(isinstance(n, str) for n in names):
        raise ConfigError(
            "objective: expected the name of a loss, several names, weights by name, or an"
            f" Objective; got {objective!r}"
        )
    if not names:
        raise ConfigError("objective: names no loss; leave it out for the mean of all")
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)


def objective_over(
    evaluation: Sequence[str],
    given: ObjectiveLike | None,
    *,
    unit: Unit,
    direction: Mapping[str, Direction] | None = None,
    scale: Scale = "none",
) -> Objective:
    """Return an objective over the available losses.

    Args:
        evaluation: Evaluation domains, in the order of the losses' columns; globs match them.
        given: What is minimised; the mean of all losses when None.
        unit: Unit of the losses.
        direction: `higher` for each metric of which higher is better, by name or glob.
        scale: `spread` to divide each loss of a mean by its standard deviation over the trials.

    Raises:
        ConfigError: An unknown loss, a glob that matches none, or an argument that cannot be right.
    """
    if isinstance(given, Objective):
        return given.over(evaluation)
    if direction is not None and not isinstance(direction, Mapping):
        raise ConfigError(
            "direction: expected lower or higher by name, such as {'accuracy': 'higher'}; got"
            f" {direction!r}"
        )
    if isinstance(given, ObjectiveConfig):
        _check_alone(direction, scale)
        content = given.model_copy(update={"unit": unit})
        return Objective.from_config(content, evaluation)
    weights = asked_patterns(given) or dict.fromkeys(evaluation, 1.0)
    plain = _content(weights, evaluation, scale)
    plain |= {"unit": unit, "direction": dict(direction or {}), "scale": scale}
    return Objective.from_config(checked(ObjectiveConfig, plain, "objective"), evaluation)


def _content(
    weights: Mapping[str, float], evaluation: Sequence[str], scale: Scale
) -> dict[str, Any]:
    """Return a target where one loss is meant, and a mean otherwise."""
    first, *others = weights
    if others or len(chosen(first, evaluation)) > 1:
        return {"mean": dict(weights)}
    if scale == "spread":
        raise ConfigError(f"scale: spread: is for a mean of targets, but {first!r} is alone")
    return {"target": first}


def _check_alone(direction: Mapping[str, Direction] | None, scale: Scale) -> None:
    if direction or scale != "none":
        raise ConfigError(
            "objective: a file or a section has its own direction and scale; leave those out"
        )
