"""The sizes of domains in one table, and how each was counted."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.corpus import DomainCount
from mixopt.reporting.text_table import table_text
from mixopt.system import bytes_text, count_text, share_text, short_count


def counts_text(counts: Sequence[DomainCount], tokenizer: str) -> str:
    """Return the table of `mixopt count`.

    Args:
        counts: The domains.
        tokenizer: Whose tokens they are.
    """
    rows = []
    sizes = [count.tokens if count.tokens is not None else count.bytes for count in counts]
    for count, size in zip(counts, sizes, strict=True):
        tokens = "-" if count.tokens is None else _about(count.tokens, exact=count.is_exact)
        rows.append(
            (
                count.name,
                count_text(count.files) if count.files else "-",
                bytes_text(count.bytes) if count.bytes else "-",
                tokens,
                share_text(size / sum(sizes)),
                count.how,
            )
        )
    columns = ("domain", "files", "text", "tokens", "share", "by")
    title = f"Whole domains, in tokens of {tokenizer}"
    lines = [table_text(title, columns, rows, texts=("by",))]
    if any(count.tokens is None for count in counts):
        lines.append(f"{tokenizer} is trained in the step prepare; until then sizes are in bytes")
    return "\n".join(lines)


def _about(tokens: int, *, exact: bool) -> str:
    return count_text(tokens) if exact else f"~{short_count(tokens)}"
