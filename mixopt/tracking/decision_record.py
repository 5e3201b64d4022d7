"""What MLflow has of a decision: gains as metrics to sort runs by, the answer as tags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.tracking.lines import MetricLines

if TYPE_CHECKING:
    from mixopt.proposals import Recommendation

GAINS = "gains.jsonl"


def write_gains(found: Recommendation, folder: Path) -> None:
    """Write the gains and costs of a recommended mixture as a line of metrics.

    Keys: `gain/<mixture>`, `gain_low/...`, `gain_high/...`, `predicted_gain/...`, and
    `cost/<evaluation domain>` for losses that the objective does not measure.

    Args:
        found: The recommendation.
        folder: Where `gains.jsonl` is written anew.
    """
    metrics: dict[str, float] = {}
    for name, gain in found.gains.items():
        one, predicted = gain.validated, gain.predicted
        metrics |= {f"gain/{name}": one.value, f"gain_low/{name}": one.low}
        metrics[f"gain_high/{name}"] = one.high
        metrics |= {} if predicted is None else {f"predicted_gain/{name}": predicted.value}
    metrics |= {f"cost/{name}": cost.value for name, cost in found.costs.items()}
    (folder / GAINS).unlink(missing_ok=True)
    lines = MetricLines(folder / GAINS)
    lines.write(metrics, 0)
    lines.close()


def decision_tags(found: Recommendation) -> dict[str, str]:
    """Return the answer as tags; MLflow shows the note on the run's first page."""
    return {
        "mixopt.recommended": found.chosen,
        "mixopt.standing": found.standing,
        "mlflow.note.content": found.headline,
    }
