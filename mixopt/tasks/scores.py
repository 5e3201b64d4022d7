"""From the log-probability of each row to the metrics of a task.

- bits_per_byte: of the gold answer, -ln p / (bytes ln 2), the mean over items ("macro", as OLMES).
- choice_log_probability: ln of the gold answer's share of the probability of all choices.
- choice_probability: that share.
- accuracy: 1 where the gold answer is the likeliest choice, 0 elsewhere.

Choices are compared by ln p, or by it over the characters or bytes of the answer, or less what it
is without the question. Items are averaged by their weights.

Shapes: R rows, I items, C choices of an item.
"""

from __future__ import annotations

import math

import numpy as np

from mixopt.config import task_column
from mixopt.system import Array
from mixopt.tasks.encoded_task import EncodedTask


def task_metrics(task: EncodedTask, log_probability_R: Array) -> dict[str, float]:
    """Return what is measured of a task, by the name of its column.

    Args:
        task: The task.
        log_probability_R: Sum of the natural logarithms of the probabilities of each row's scored
            tokens.
    """
    scores = item_scores(task, log_probability_R)
    whole = task.weight_I.sum()
    return {
        task_column(task.name, metric): float((task.weight_I * scores[metric]).sum() / whole)
        for metric in task.metrics
    }


def item_scores(task: EncodedTask, log_probability_R: Array) -> dict[str, Array]:
    """Return each metric of every item, shape (I,) each, by the metric."""
    log_probability_R = np.asarray(log_probability_R, dtype=np.float64)
    found: dict[str, Array] = {}
    if "bits_per_byte" in task.metrics:
        gold_R = task.choice_R == task.gold_I[task.item_R]
        bits_I = np.empty(task.items)
        bits_I[task.item_R[gold_R]] = -log_probability_R[gold_R] / (
            task.bytes_R[gold_R] * math.log(2)
        )
        found["bits_per_byte"] = bits_I
    if len(found) < len(task.metrics):
        compared = _of_choices(task, log_probability_R)
        found |= {name: values for name, values in compared.items() if name in task.metrics}
    return found


def _of_choices(task: EncodedTask, log_probability_R: Array) -> dict[str, Array]:
    choices = int(task.choice_R.max()) + 1
    score_IC = np.full((task.items, choices), -np.inf)
    asked_R = task.choice_R >= 0
    score_IC[task.item_R[asked_R], task.choice_R[asked_R]] = _compared(task, log_probability_R)
    # Of items with fewer choices the others are impossible.
    shifted_IC = score_IC - score_IC.max(axis=1, keepdims=True)
    share_IC = np.exp(shifted_IC)
    log_total_I = np.log(share_IC.sum(axis=1))
    every = np.arange(task.items)
    log_share_I = shifted_IC[every, task.gold_I] - log_total_I
    return {
        "choice_log_probability": log_share_I,
        "choice_probability": np.exp(log_share_I),
        "accuracy": (score_IC.argmax(axis=1) == task.gold_I).astype(np.float64),
    }


def _compared(task: EncodedTask, log_probability_R: Array) -> Array:
    """Return what the rows with their question are compared by, in their order."""
    asked_R = task.choice_R >= 0
    value_R: Array = log_probability_R[asked_R]
    if task.normalisation == "characters":
        value_R = value_R / task.characters_R[asked_R]
    elif task.normalisation == "bytes":
        value_R = value_R / task.bytes_R[asked_R]
    elif task.normalisation == "unconditional":
        places = zip(task.item_R.tolist(), task.choice_R.tolist(), strict=True)
        row_of = {place: row for row, place in enumerate(places)}
        rows = np.flatnonzero(asked_R).tolist()
        plain = [row_of[int(task.item_R[r]), -1 - int(task.choice_R[r])] for r in rows]
        value_R = value_R - log_probability_R[plain]
    return value_R
