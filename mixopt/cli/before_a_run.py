"""Commands that come before a run: count."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import (
    AsJson,
    ConfigPath,
    Overrides,
    app,
    config_of,
    print_json,
    say,
    show,
)

INVENTORY_HEADER = (
    "# Sizes of the whole domains, for corpus.inventory; written by mixopt count.\n"
    "# A number is of tokens; duplicates are counted.\n"
)


@app.command("count")
def count_command(
    config: ConfigPath,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the sizes to this file, for inventory.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Count the tokens of the whole domains, without tokenising them."""
    import yaml

    from mixopt.config import load_config
    from mixopt.corpus import count_domains, inventory_of
    from mixopt.reporting import counts_text
    from mixopt.system import write_text

    corpus = load_config(config_of(config), _without_inventory(overrides)).corpus
    counts = count_domains(corpus, say)
    if out is not None:
        content = yaml.safe_dump(dict(inventory_of(counts)), sort_keys=False, allow_unicode=True)
        write_text(out, INVENTORY_HEADER + content)
    if as_json:
        print_json({"tokenizer": corpus.tokenizer, "domains": [c.to_json() for c in counts]})
        return
    show(counts_text(counts, corpus.tokenizer))
    show(
        f"inventory: {out}" if out else "next: --out inventory.yaml, and corpus.inventory in CONFIG"
    )


def _without_inventory(overrides: list[str] | None) -> list[str]:
    """Let the file that is about to be written be absent."""
    return [*(overrides or ()), "corpus.inventory=null"]
