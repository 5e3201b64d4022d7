"""Names of tasks: in an objective, among losses, and in the table of trials."""

from __future__ import annotations

TASK = "task/"  # begins the name of what a task measures, task/<name>/<metric>
FAMILY = "family/"  # begins the name of a family of tasks, in an objective
# Metrics that compare choices; of all of them higher is better.
OF_CHOICES = frozenset({"choice_log_probability", "choice_probability", "accuracy"})
# These, and what lm-eval and OLMES call theirs of which higher is better.
HIGHER = OF_CHOICES | {
    *("acc", "acc_norm", "acc_mutual_info", "exact_match", "f1", "em", "mcc", "pass@1"),
    *("acc_raw", "acc_per_char", "acc_per_byte", "acc_per_token", "acc_uncond"),
    *("correct_prob", "margin", "primary_score"),
}
UNIT_OF = {"choice_log_probability": "nats", "choice_probability": "share", "accuracy": "share"}


def task_column(name: str, metric: str) -> str:
    """Return the name of a task's metric among losses, and in the table of trials."""
    return f"{TASK}{name}/{metric}"


def task_metric(loss: str) -> tuple[str, str] | None:
    """Return the task and the metric of a loss; None for an evaluation domain.

    Args:
        loss: Name of a loss.
    """
    if not loss.startswith(TASK):
        return None
    name, _, metric = loss.removeprefix(TASK).rpartition("/")
    return name, metric
