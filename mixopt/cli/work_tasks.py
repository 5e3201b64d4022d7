"""The command that a cluster's task runs: work."""

from __future__ import annotations

from typing import Annotated

import typer

from mixopt.cli.options import Directory, Trusted, app, say


@app.command("work")
def work_command(
    directory: Directory,
    task: Annotated[
        str, typer.Option("--task", metavar="K/N", help="Which of N tasks; K counts from 0.")
    ] = "0/1",
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay while a mixopt run is at work in DIR.")
    ] = False,
    trust: Trusted = False,
) -> None:
    """Train trials of a run that another mixopt owns, or that is designed; on any host."""
    from mixopt.pipeline import work

    number = work(directory, task, trust=trust, wait=wait, say=say)
    if number:
        raise typer.Exit(128 + number)
