"""The command of the record: sync."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import AsJson, Directory, app, print_json, say, show


@app.command("sync")
def sync_command(
    directory: Directory,
    uri: Annotated[
        str | None,
        typer.Option("--uri", help="Server or database [default: MLFLOW_TRACKING_URI]."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file whose `tracking` section is used.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Send to the server that the run directory itself names."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send to MLflow what it does not have yet.

    Exit code 1 if something remains.
    """
    from mixopt.tracking import sync, sync_line

    result = sync(directory, uri, config=config, trust=trust, say=say)
    print_json(result.to_json()) if as_json else show(sync_line(directory, result))
    if result.trouble:
        raise typer.Exit(1)
