"""The tasks of a folder as a table for a terminal."""

from __future__ import annotations

from mixopt.reporting.text_table import table_text
from mixopt.tasks import FolderCheck, TaskSizes


def tasks_text(found: FolderCheck) -> str:
    """Return the table of a folder's tasks, and its warnings."""
    counted = any(one.tokens is not None for one in found.tasks)
    cut = any(one.contexts_cut is not None for one in found.tasks)
    columns = ["task", "family", "items", "choices", "context B", "answer B"]
    columns += ["tokens", "scored"] * counted + ["contexts cut", "in pieces"] * cut
    rows = [_row(one) for one in found.tasks]
    lines = [table_text("Tasks", columns, rows)]
    lines += [f"{one.name}: {warning}" for one in found.tasks for warning in one.warnings]
    return "\n".join([*lines, *found.doubled])


def _row(one: TaskSizes) -> list[str]:
    numbers = (one.tokens, one.scored_tokens, one.contexts_cut, one.answers_in_pieces)
    return [
        one.name,
        one.family or "",
        f"{one.items:,}",
        str(one.choices),
        f"{one.context_bytes:,.0f}",
        f"{one.answer_bytes:,.0f}",
        *(f"{number:,}" for number in numbers if number is not None),
    ]
