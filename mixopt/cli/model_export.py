"""The command that writes a checkpoint as a model of transformers: export-model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import AsJson, Trusted, app, print_json, show


@app.command("export-model")
def export_model_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a pretraining.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    step: Annotated[
        int | None,
        typer.Option("--step", min=0, help="Steps of the checkpoint [default: the newest]."),
    ] = None,
    averaged: Annotated[
        bool, typer.Option("--averaged", help="Write the averaged weights (training.ema_decay).")
    ] = False,
    shard: Annotated[
        str, typer.Option("--shard", metavar="SIZE", help="Largest file of weights, such as 500MB.")
    ] = "5GB",
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as a model that transformers loads.

    With its tokenizer; logits are compared with the run's before the folder is created.
    """
    from mixopt.pretraining import export_lines, export_model

    export = export_model(run, out, step=step, averaged=averaged, shard=shard, trust=trust)
    print_json(export.to_json()) if as_json else show("\n".join(export_lines(export)))
