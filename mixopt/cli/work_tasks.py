"""The command that a task of a cluster runs: work."""

from __future__ import annotations

from typing import Annotated

import typer

from mixopt.cli.options import Directory, Trusted, app, say


@app.command("work")
def work_command(
    directory: Directory,
    task: Annotated[
        str, typer.Option("--task", metavar="K/N", help="This task of N; K counts from 0.")
    ] = "0/1",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for more trials while a mixopt run owns the sweep.")
    ] = False,
    trust: Trusted = False,
) -> None:
    """Train trials of a run on any host: one task of its sweep."""
    from mixopt.pipeline import work

    number = work(directory, task, trust=trust, wait=wait, say=say)
    if number:
        raise typer.Exit(128 + number)
