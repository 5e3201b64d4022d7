"""The command of the record: sync."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import AsJson, Directory, app, print_json, show


@app.command("sync")
def sync_command(
    directory: Directory,
    uri: Annotated[
        str | None,
        typer.Option("--uri", help="Server or database; MLFLOW_TRACKING_URI if not given."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Your YAML file, whose `tracking` counts.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Send to the server that only DIR itself names.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send what of a run is not in MLflow yet; exit code 1 where something is left."""
    from mixopt.tracking import sync, sync_line

    result = sync(directory, uri, config=config, trust=trust)
    print_json(result.to_json()) if as_json else show(sync_line(directory, result))
    if result.trouble:
        raise typer.Exit(1)
