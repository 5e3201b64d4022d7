"""Names of task metrics, in objectives, losses and tables; the bare install reads them."""

TASK = "task/"  # prefix of the name of a task metric, task/<name>/<metric>
FAMILY = "family/"  # prefix of the name of a family of tasks, in an objective
BITS_PER_BYTE = "bits_per_byte"  # the metric of tasks in trials


def task_column(name: str, metric: str) -> str:
    """Return the name of a task's metric among losses, and in the table of trials."""
    return f"{TASK}{name}/{metric}"


def task_metric(loss: str) -> tuple[str, str] | None:
    """Return the task and the metric of a loss; None for an evaluation domain."""
    if not loss.startswith(TASK):
        return None
    name, _, metric = loss.removeprefix(TASK).rpartition("/")
    return name, metric
