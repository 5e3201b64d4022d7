"""The command of the record: sync."""

from __future__ import annotations

from typing import Annotated

import typer

from mixopt.cli.options import AsJson, Directory, app, print_json


@app.command("sync")
def sync_command(
    directory: Directory,
    uri: Annotated[
        str | None, typer.Option("--uri", help="Another server or database than the run's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send what of a run is not in MLflow yet; exit code 1 where something is left."""
    from mixopt.tracking import sync, sync_line

    result = sync(directory, uri)
    print_json(result.to_json()) if as_json else print(sync_line(directory, result))
    if result.trouble:
        raise typer.Exit(1)
