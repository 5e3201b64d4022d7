"""What a training job wrote of its mixture and its losses over time; nothing here needs torch.

Weights are those of `mixture_log.jsonl`, which has every change of them, and where there is none
those of the lines of `metrics.jsonl`. Losses are those of `metrics.jsonl`: of training by domain,
and on held-out text by evaluation domain. Both files are written while the job runs: a line that
is half written yet is left out.

Shapes: T points in time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.online.logged_changes import MIXTURE_LOG, read_changes
from mixopt.system import checked_as, parse_json, read_text

METRICS_LOG = "metrics.jsonl"  # in the directory of a pretraining
HELD_OUT, TRAINED = "held_out_loss", "train_loss"


@dataclass(frozen=True)
class TrainingHistory:
    """Weights and losses of a job, by optimiser step.

    Attributes:
        weights: From which step on which mixture held, in the order of the steps.
        held_out: Held-out losses by evaluation domain: steps, and nats per token.
        trained: Losses of training by domain, in the same form.
        last: The last step that is known.
    """

    weights: tuple[tuple[int, Mapping[str, float]], ...]
    held_out: Mapping[str, tuple[list[int], list[float]]]
    trained: Mapping[str, tuple[list[int], list[float]]]
    last: int

    @property
    def domains(self) -> tuple[str, ...]:
        """All domains that ever had a weight."""
        return tuple(dict.fromkeys(name for _, weights in self.weights for name in weights))


def read_history(path: str | Path) -> TrainingHistory:
    """Read what a job wrote.

    Args:
        path: The directory of a pretraining, or a mixture log.

    Raises:
        RunError: There is neither a mixture log nor a file of metrics, or a line is not one of
            theirs.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    log = folder / MIXTURE_LOG if path.is_dir() else path
    lines = list(_lines(folder / METRICS_LOG))
    logged = _logged(log)
    if not lines and not logged:
        raise RunError(
            f"{path}: has no weights or losses over time; give the directory of `mixopt pretrain`,"
            " or the file that an online driver logs to"
        )
    measured = [(step, found["weight"]) for step, found in lines if found.get("weight")]
    steps = [step for step, _ in (*lines, *logged)]
    return TrainingHistory(
        weights=tuple(logged or measured),
        held_out=_by_name(lines, HELD_OUT),
        trained=_by_name(lines, TRAINED),
        last=max(steps),
    )


def _logged(log: Path) -> list[tuple[int, Mapping[str, float]]]:
    """Return the weights of a mixture log, its first ones included."""
    for _, content in _lines(log):
        first = (1, checked_as(dict[str, float], content.get("weights"), f"{log}: weights"))
        return [first, *((change.step, change.after) for change in read_changes(log))]
    return []


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.exists():
        return
    for number, line in enumerate(read_text(path, error=RunError).splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        where = f"{path}: line {number}"
        content = checked_as(dict[str, Any], parse_json(line, where), where)
        yield checked_as(int, content.get("step"), f"{where}: step"), content


def _by_name(
    lines: list[tuple[int, dict[str, Any]]], kind: str
) -> dict[str, tuple[list[int], list[float]]]:
    found: dict[str, tuple[list[int], list[float]]] = {}
    for step, content in lines:
        losses = checked_as(dict[str, float], content.get(kind, {}), f"step {step}: {kind}")
        for name, value in losses.items():
            if math.isfinite(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
    return found
