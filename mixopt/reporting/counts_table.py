"""The sizes of domains in one table, and how each was found."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.corpus import DomainCount
from mixopt.reporting.terminal import _table, _text_of
from mixopt.system import bytes_text, count_text, share_text, short_count


def counts_text(counts: Sequence[DomainCount], tokenizer: str) -> str:
    """Return the table of `mixopt count`.

    Args:
        counts: The domains.
        tokenizer: Whose tokens they are.
    """
    table = _table(
        f"Whole domains, tokens of {tokenizer}", "domain", "files", "text", "tokens", "share", "by"
    )
    sizes = [count.tokens if count.tokens is not None else count.bytes for count in counts]
    for count, size in zip(counts, sizes, strict=True):
        tokens = "-" if count.tokens is None else _about(count.tokens, exact=count.is_exact)
        table.add_row(
            count.name,
            count_text(count.files) if count.files else "-",
            bytes_text(count.bytes) if count.bytes else "-",
            tokens,
            share_text(size / sum(sizes)),
            count.how,
        )
    lines = [_text_of(table)]
    if any(count.tokens is None for count in counts):
        lines.append(
            f"{tokenizer} is trained by prepare: sizes are in bytes, and become tokens then"
        )
    return "\n".join(lines)


def _about(tokens: int, *, exact: bool) -> str:
    return count_text(tokens) if exact else f"~{short_count(tokens)}"
