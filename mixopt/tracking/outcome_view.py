"""A view of MLflow's table of runs with the outcomes as columns.

MLflow shows no metric in its table of runs by default, and no setting changes that. From 3.15 on a
view can be saved with an experiment, as a tag of it: a choice of columns with an order, that the
menu *Views* lists and that the address `?viewStateShareKey=outcomes` opens. The forms are those of
MLflow's own page; older versions ignore the tag.
"""

from __future__ import annotations

import base64
import json
import time
import zlib

VIEW = "outcomes"  # in the address
TAG = f"mlflow.sharedViewState.{VIEW}"
SORTED_BY = "outcome/validated_gain"
COLUMNS = (
    SORTED_BY,
    "outcome/validated_gain_low",
    "outcome/validated_gain_high",
    "outcome/predicted_gain",
    "outcome/held_out_spearman",
    "spent/trials_done",
)


def view_tags() -> dict[str, str]:
    """Return the tag of an experiment that holds the view."""
    state = {
        "orderByKey": _metric(SORTED_BY),
        "orderByAsc": False,
        "selectedColumns": [_metric(name) for name in COLUMNS],
        "viewMaximized": True,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode("ascii")
    named = {"name": "Outcomes", "createdAt": int(time.time() * 1000), "state": f"deflate;{packed}"}
    return {TAG: json.dumps(named)}


def _metric(name: str) -> str:
    """Return what MLflow's page calls the column of a metric."""
    return f"metrics.`{name}`"
