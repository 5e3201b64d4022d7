"""Training documents that contain answers of tasks: count them, and drop them on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mixopt.config import TasksConfig
from mixopt.corpus.task_preparation import scored_items
from mixopt.corpus.text import DomainText
from mixopt.system import Say
from mixopt.tasks import AnswerFinder


def screen_training(texts: Iterable[DomainText], tasks: TasksConfig | None, progress: Say) -> None:
    """Count the training documents that contain an item's answer with its context.

    Args:
        texts: The domains; where `tasks.drop_overlap` is true, such documents are left out of them.
        tasks: The section of the configuration; None where there are no tasks.
        progress: Receives a line for each domain that has some.

    Raises:
        ConfigError: A file of items cannot be read, or is wrong.
    """
    if tasks is None:
        return
    finder = AnswerFinder()
    for name in tasks.sets:
        finder.add(name, scored_items(tasks, name))
    for text in texts:
        if not text.is_target:
            _screen(text, finder, progress, drop=bool(tasks.drop_overlap))


def _screen(text: DomainText, finder: AnswerFinder, progress: Say, *, drop: bool) -> None:
    counts: Counter[str] = Counter()
    digests = []
    for document in text.training():
        found = finder.tasks_in(document.content.decode())
        if found:
            counts.update(found)
            digests.append(document.digest)
    if not digests:
        return
    what = ", ".join(f"{task} {count:,}" for task, count in sorted(counts.items()))
    documents = "document has" if len(digests) == 1 else "documents have"
    line = f"{text.name}: {len(digests):,} training {documents} answers of tasks ({what})"
    if drop:
        text.drop_answers(digests)
        progress(f"{line}: left out")
    else:
        progress(f"{line}: warning: tasks.drop_overlap: true leaves them out")
