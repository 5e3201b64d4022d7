"""Two runs beside each other: `mixopt compare`.

What differs of their configurations, their mixtures and how far these are apart, how good their
fits are on held-out folds, and what validation showed of gains and of the losses that pay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixopt.fitting import OBJECTIVE
from mixopt.mixture import Mixture
from mixopt.proposals import named
from mixopt.reporting import table_text
from mixopt.run_directory import FIT, PROPOSE, VALIDATE, Run
from mixopt.system import share_text

LONGEST_VALUE = 60  # characters of a field that are shown


@dataclass(frozen=True)
class RunSide:
    """What one of the two runs has; what its steps have not made yet is None.

    Attributes:
        path: The run directory.
        mixture: Recommended, or proposed where nothing is validated.
        called: What the mixture is: `the proposal`, `natural`, ...
        fit: The chosen regressor, its error and rank correlation on held-out folds.
        gains: Validated gain over each baseline.
        costs: Change of the losses outside the objective, against natural.
        unit: Of gains, costs and the error.
        objective: What is minimised.
    """

    path: str
    mixture: Mixture | None
    called: str
    fit: Mapping[str, Any] | None
    gains: Mapping[str, float]
    costs: Mapping[str, float]
    unit: str
    objective: str


@dataclass(frozen=True)
class RunComparison:
    """Two runs.

    Attributes:
        left: One.
        right: The other.
        differences: Values of the fields that differ, of both, by the name of the field.
        distance: Total variation of the mixtures; None where one is missing.
    """

    left: RunSide
    right: RunSide
    differences: Mapping[str, tuple[Any, Any]]
    distance: float | None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "runs": [_side_json(self.left), _side_json(self.right)],
            "configuration": {name: list(pair) for name, pair in self.differences.items()},
            "total_variation": self.distance,
        }


def compare_runs(left: Run, right: Run) -> RunComparison:
    """Compare two runs.

    Raises:
        RunError: A file of one is damaged.
    """
    one, other = _side(left), _side(right)
    distance = None
    if one.mixture is not None and other.mixture is not None:
        names = list(dict.fromkeys((*one.mixture, *other.mixture)))
        shares = ((_share(one.mixture, n), _share(other.mixture, n)) for n in names)
        distance = 0.5 * math.fsum(abs(a - b) for a, b in shares)
    return RunComparison(one, other, _differences(left, right), distance)


def comparison_text(found: RunComparison) -> str:
    """Return the comparison as tables for a terminal."""
    return "\n".join(_lines(found)).rstrip("\n")


def _lines(found: RunComparison) -> Iterator[str]:
    sides = (found.left, found.right)
    yield f"A: {found.left.path}"
    yield f"B: {found.right.path}"
    yield ""
    if found.differences:
        rows = [(name, *map(_shown, pair)) for name, pair in found.differences.items()]
        yield table_text("Configuration, where it differs", ("field", "A", "B"), rows, texts="AB")
    else:
        yield "The configurations are the same.\n"
    if found.distance is not None:
        yield _mixtures(found)
    fits = [side.fit for side in sides]
    if all(fit is not None for fit in fits):
        rows = [(name, *(_number(fit[name]) for fit in fits if fit)) for name in _FIT]
        yield table_text("Fit, on held-out folds", ("", "A", "B"), rows)
    for title, values in (
        ("Validated gain over ... (above 0 is better)", [side.gains for side in sides]),
        ("Losses outside the objective, change from natural (above 0 is worse)",
         [side.costs for side in sides]),
    ):  # fmt: skip
        names = list(dict.fromkeys(name for one in values for name in one))
        if names:
            rows = [(named(n), *(_signed(one.get(n)) for one in values)) for n in names]
            yield table_text(title, ("", "A", "B"), rows)
    if found.left.objective != found.right.objective or found.left.unit != found.right.unit:
        yield "The objectives differ: errors and gains cannot be compared."


_FIT = ("regressor", "error", "Spearman")


def _mixtures(found: RunComparison) -> str:
    left: Mapping[str, float] = found.left.mixture or {}
    right: Mapping[str, float] = found.right.mixture or {}
    names = sorted(
        dict.fromkeys((*left, *right)), key=lambda n: -max(left.get(n, 0.0), right.get(n, 0.0))
    )
    rows = [
        (
            name,
            share_text(_share(left, name)),
            share_text(_share(right, name)),
            f"{100 * (_share(right, name) - _share(left, name)):+.1f}%",
        )
        for name in names
    ]
    table = table_text(
        f"Mixtures: A {found.left.called}, B {found.right.called}",
        ("domain", "A", "B", "B - A"),
        rows,
    )
    return f"{table}\ntotal variation: {found.distance:.3f}\n"


def _side(run: Run) -> RunSide:
    mixture, called, gains, costs = None, "", {}, {}
    if run.is_done(VALIDATE.name):
        found = run.recommendation
        mixture, called = found.mixture, named(found.chosen)
        gains = {name: gain.validated.value for name, gain in found.gains.items()}
        costs = {name: cost.value for name, cost in found.costs.items()}
    elif run.is_done(PROPOSE.name):
        mixture, called = run.proposal.mixture, "the proposal (not validated)"
    unit = run.config.objective.unit
    fit = _fit(run) if run.is_done(FIT.name) else None
    objective = str(run.config.aim.model_dump(mode="json", exclude_defaults=True))
    return RunSide(str(run.path), mixture, called, fit, gains, costs, unit, objective)


def _fit(run: Run) -> dict[str, Any]:
    fit = run.fit
    rows = [
        row
        for row in fit.report.iter_rows(named=True)
        if row["predictor"] == fit.name and row["target"] == OBJECTIVE
    ]
    first = rows[0] if rows else {"rmse": None, "spearman": None}
    return {"regressor": fit.name, "error": first["rmse"], "Spearman": first["spearman"]}


def _differences(left: Run, right: Run) -> dict[str, tuple[Any, Any]]:
    one, other = dict(_fields(left.content)), dict(_fields(right.content))
    names = dict.fromkeys((*one, *other))
    return {
        name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)
    }


def _fields(content: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Give every value of a configuration with its dotted name."""
    if isinstance(content, Mapping) and content:
        for name, value in content.items():
            yield from _fields(value, f"{before}.{name}" if before else str(name))
    else:
        yield before, content


def _side_json(side: RunSide) -> dict[str, Any]:
    mixture = None if side.mixture is None else dict(side.mixture)
    return {**vars(side), "mixture": mixture, "gains": dict(side.gains), "costs": dict(side.costs)}


def _share(mixture: Mapping[str, float], name: str) -> float:
    return float(mixture.get(name, 0.0))


def _shown(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        text = ", ".join(map(str, value))
    else:
        text = "-" if value is None else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
