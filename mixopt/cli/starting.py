"""The command that begins an experiment: init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import COMMAND, AsJson, app, print_json, say, show


@app.command("init")
def init_command(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="A folder of domains, or a path for each domain."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The YAML file to write.")
    ] = Path("experiment.yaml"),
    as_json: AsJson = False,
) -> None:
    """Write an experiment's YAML file from files of text.

    Of one folder, each subfolder and each file is a domain; of several paths, each path. Reads
    JSONL, JSON, CSV, Parquet, Arrow and text, also compressed. Where one file names the source of
    each row, its rows are split by source. Existing files are never overwritten.
    """
    from mixopt.pipeline import found_text, start_experiment

    found = start_experiment(paths, out, say)
    command = f"mixopt check {out}"
    if as_json:
        print_json({**found.to_json(), "next": command})
        return
    show(found_text(found))
    for note in found.notes:
        show(f"note: {note}")
    show(f"written: {out}")
    show(f"{COMMAND}{command}")
