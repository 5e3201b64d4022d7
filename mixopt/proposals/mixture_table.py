"""A mixture as a table in a notebook: natural shares, its own, and passes over the text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mixopt.mixture import Mixture
from mixopt.system import html_table


def mixture_table(
    caption: str,
    mixture: Mixture,
    natural: Mixture,
    epochs: Mapping[str, float] | None,
    notes: Iterable[str],
    *,
    called: str,
) -> str:
    """Return an HTML table with a row for each domain, the largest share first.

    Args:
        caption: What stands above it.
        mixture: The shares.
        natural: Shares of the available tokens.
        epochs: Passes over each domain's tokens; None where they are not known.
        notes: Lines below it.
        called: The heading of the shares.
    """
    columns = ["domain", "natural", called, "change"] + (["epochs"] if epochs else [])
    rows = _rows(mixture, natural, epochs or {})
    return html_table(caption, columns, rows, notes=notes, what="domains")


def _rows(mixture: Mixture, natural: Mixture, epochs: Mapping[str, float]) -> Iterable[list[str]]:
    for domain, weight in sorted(mixture.items(), key=lambda item: -item[1]):
        before = natural[domain]
        shares = [f"{100 * before:.1f}%", f"{100 * weight:.1f}%", f"{100 * (weight - before):+.1f}"]
        yield [domain, *shares, *([f"{epochs[domain]:.2f}"] if epochs else [])]
