"""A fit as plain numbers: what predicts, how deviations become intervals, and what is minimised.

What an objective needs beyond the losses (with pilots it has columns of its own) is part of the
law's model, as it is of the regressor that a search asks. So values are the largest of a few
weighted sums of the model's columns, in all cases.

Shapes: M losses, C columns of the model (the losses first), P pieces of the objective.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixopt.errors import PluginError
from mixopt.fitting import Fit, aimed, supports_plain_law
from mixopt.objective import Objective
from mixopt.system import Array

LARGE = 2**12  # entries; above, tables of trials are in single precision

# What `makeModel` in mixopt/what_if/assets/law.js knows.
KINDS = (
    "gaussian_process",
    "power",
    "skills",
    "linear",
    "log_linear",
    "epochs",
    "trees",
    "mean",
    "corrected",
    "aimed",
)


def law_data(fit: Fit, objective: Objective | None = None) -> dict[str, Any]:
    """Return the entries `law` and `objective` of a page's data.

    Args:
        fit: Any.
        objective: Over the fit's losses; the fit's own when None.

    Raises:
        PluginError: Its regressor has no plain law.
    """
    asked = objective or fit.objective
    regressor, aim = aimed(fit.regressor, asked)
    if not supports_plain_law(regressor):
        raise PluginError(
            f"regressor {fit.name!r} cannot be written out as numbers, so there is no what-if; use"
            " auto, ensemble or one of their members"
        )
    model = regressor.plain_law()
    for kind in kinds_of(model):
        if kind not in KINDS:
            raise PluginError(
                f"regressor {fit.name!r} has a kind of law that no page knows: {kind!r}; there are"
                f" {', '.join(KINDS)}"
            )
    return {
        "law": {"model": model, "intervals": _intervals(fit, asked)},
        "objective": _objective(asked, aim),
    }


def kinds_of(model: Any) -> Iterator[Any]:
    """Yield the kind of a law, and of all laws that are part of it."""
    if isinstance(model, dict):
        if "kind" in model:
            yield model["kind"]
        model = list(model.values())
    if isinstance(model, list):
        for part in model:
            yield from kinds_of(part)


def _intervals(fit: Fit, objective: Objective) -> dict[str, Any]:
    every, own = fit.calibrations, fit.objective_calibration(objective)
    return {
        "factors": np.array([one.factor for one in every]),
        "floors": np.array([one.floor for one in every]),
        "locals": [one.local for one in every],
        "value": own.to_json(),
        "reach": {
            "weights": as_in_law(fit.data.weights_ND),
            "reach": fit.reach.reach,
            "radius": fit.reach.radius,
        },
        "agrees": _agrees(fit, objective),
    }


def as_in_law(weights_ND: Array) -> NDArray[np.floating[Any]]:
    """Return the trials as a law of many of them has them, so that all are one array."""
    return weights_ND.astype(np.float32) if weights_ND.size > LARGE else weights_ND


def _agrees(fit: Fit, objective: Objective) -> dict[str, Any] | None:
    """Return which loss is predicted as the objective is, and its sign (`Prediction.agreeing`)."""
    if fit.pilots is None or objective.kind != "target":
        return None
    column = objective.columns[0]
    return {"column": column, "sign": float(objective.signs[column])}


def _objective(objective: Objective, aim: Objective) -> dict[str, Any]:
    measured = objective.columns
    spreads = objective.spreads or {}
    return {
        "kind": objective.kind,
        "description": objective.describe(),
        "unit": objective.value_unit,
        "loss_unit": objective.unit,
        "measured": measured,
        "weights": [objective.weights[name] for name in objective.measured],
        "spreads": [spreads.get(name, 1.0) for name in objective.measured],
        "signs": objective.signs,
        "pieces": aim.pieces().tolist(),
    }
