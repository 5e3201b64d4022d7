"""Score a folder of tasks with a pretrained model: the library side of `mixopt tasks score`.

Shapes: R rows, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.pretraining.trained_model import TrainedModel
from mixopt.reporting import table_text
from mixopt.system import progress
from mixopt.tasks import (
    EncodedTask,
    chosen_items,
    cut_counts,
    encode_task,
    read_task_folder,
    task_metrics,
)


@dataclass(frozen=True)
class ScoredTask:
    """What a model scored in a task.

    Attributes:
        name: The task.
        family: Its family, if it has one.
        items: Items that were scored.
        metrics: What was measured, by the metric.
        contexts_cut: Rows (a context with an answer) whose context was cut from the left.
        answers_in_pieces: Rows whose answer is longer than what the model reads at once.
    """

    name: str
    family: str | None
    items: int
    metrics: Mapping[str, float]
    contexts_cut: int
    answers_in_pieces: int


@dataclass(frozen=True)
class TaskScores:
    """What a checkpoint scored.

    Attributes:
        checkpoint: Where its weights are from.
        step: Steps that it has taken.
        length: Most tokens that the model predicts at once.
        tasks: By name, in order.
    """

    checkpoint: Path
    step: int
    length: int
    tasks: tuple[ScoredTask, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        tasks = {
            one.name: {
                "family": one.family,
                "items": one.items,
                "metrics": dict(one.metrics),
                "contexts_cut": one.contexts_cut,
                "answers_in_pieces": one.answers_in_pieces,
            }
            for one in self.tasks
        }
        about = {"checkpoint": str(self.checkpoint), "step": self.step, "length": self.length}
        return {**about, "tasks": tasks}


def score_tasks(
    run: str | Path,
    folder: str | Path,
    *,
    checkpoint: str | None = None,
    items: int | None = None,
    device: str = "auto",
    trust: bool = False,
) -> TaskScores:
    """Score tasks with a checkpoint of a pretraining.

    Args:
        run: The directory of `mixopt pretrain`, or a folder of transformers.
        folder: The tasks (mixopt.tasks.task_folder).
        checkpoint: Name of its folder; the newest when None.
        items: Items of each task, by a hash of their ids, as in a sweep; all when None.
        device: `auto`, `cpu` or `cuda`.
        trust: Whether what the run names may be imported, and read where it is elsewhere.

    Raises:
        MixoptError: The tasks cannot be read, or the checkpoint cannot be used.
    """
    found = read_task_folder(folder)
    chosen = {name: chosen_items(task.items(), items) for name, task in found.items()}
    model = TrainedModel.open(run, checkpoint=checkpoint, device=device, trust=trust)
    encoded = [
        encode_task(
            name, chosen[name], task.notes.metrics, task.notes.normalisation, model.tokenizer
        )
        for name, task in found.items()
    ]
    metrics = _metrics(model, encoded)
    scored = tuple(
        ScoredTask(
            name=task.name,
            family=found[task.name].notes.family,
            items=task.items,
            metrics=values,
            **cut_counts(task, model.length),
        )
        for task, values in zip(encoded, metrics, strict=True)
    )
    return TaskScores(model.checkpoint, model.step, model.length, scored)


def scores_text(scores: TaskScores) -> str:
    """Return a table for a terminal."""
    title = f"{scores.checkpoint.name}, {scores.length:,} tokens at once, float32"
    rows = [
        (task.name, metric, f"{value:.4f}", f"{task.items:,}", _cut(task))
        for task in scores.tasks
        for metric, value in task.metrics.items()
    ]
    return table_text(title, ("task", "metric", "value", "items", "cut"), rows)


def _cut(task: ScoredTask) -> str:
    counts = ((task.contexts_cut, "contexts"), (task.answers_in_pieces, "answers in pieces"))
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)


def _metrics(model: TrainedModel, tasks: Sequence[EncodedTask]) -> list[dict[str, float]]:
    """Score all tasks together; return each one's metrics, by the metric."""
    rows = [(task.row(r), int(task.scored_R[r])) for task in tasks for r in range(task.rows)]
    with progress("scoring tasks", 1.0) as update:
        scores = model.score(rows, lambda done, total: update(done / total, f"{done} of {total}"))
    found, first = [], 0
    for task in tasks:
        part = scores.log_probability_R[first : first + task.rows]
        first += task.rows
        values = task_metrics(task, part)
        found.append(dict(zip(task.metrics, values.values(), strict=True)))
    return found
