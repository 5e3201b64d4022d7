"""Commands before a run: count, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mixopt.cli.options import (
    AsJson,
    ConfigPath,
    OutPath,
    Overrides,
    app,
    complain,
    config_of,
    directory_of,
    print_json,
    say,
    show,
)
from mixopt.errors import ConfigError
from mixopt.system import without_secrets

INVENTORY_HEADER = (
    "# Sizes of the whole domains, for corpus.inventory; written by mixopt count.\n"
    "# A number is of tokens; duplicates are counted.\n"
)


@app.command("check")
def check_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    peak_tflops: Annotated[
        float,
        typer.Option(
            "--peak-tflops",
            min=0.001,
            help="Peak TFLOP/s of the GPU, for the estimate of GPU hours.",
        ),
    ] = 989.0,
    utilisation: Annotated[
        float,
        typer.Option(
            "--utilisation", min=0.001, max=1, help="Model FLOP utilisation, for the same estimate."
        ),
    ] = 0.4,
    as_json: AsJson = False,
) -> None:
    """Check CONFIG: problems, sizes, trials, time and cost."""
    from mixopt.config import load_config
    from mixopt.pipeline import check_experiment, check_json, check_lines

    source = config_of(config)
    try:
        experiment = load_config(source, overrides or ())
    except ConfigError as error:
        _stop([str(error), *getattr(error, "__notes__", ())], as_json=as_json)
    directory = directory_of(source, out)
    found = check_experiment(experiment, out=directory, source=str(source), probe=True)
    if as_json:
        print_json(check_json(found, peak_tflops, utilisation))
    else:
        for line in check_lines(found, directory, peak_tflops, utilisation):
            show(line)
    if found.problems:
        _stop([str(problem) for problem in found.problems], as_json=False)


def _stop(problems: list[str], *, as_json: bool) -> NoReturn:
    """Print each problem, and exit with code 2."""
    if as_json:
        print_json({"problems": problems})
    for problem in problems:
        complain(without_secrets(problem))
    raise typer.Exit(2)


@app.command("count")
def count_command(
    config: ConfigPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the sizes to this file, for corpus.inventory."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Count the tokens of the domains without tokenising them."""
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
        f"inventory: {out}"
        if out
        else "to use these sizes: add --out inventory.yaml, and set corpus.inventory in CONFIG"
    )


def _without_inventory(overrides: list[str] | None) -> list[str]:
    """Ignore the inventory, whose file is about to be written."""
    return [*(overrides or ()), "corpus.inventory=null"]
