"""The command that a task of a cluster runs: work."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from mixopt.cli.options import AsJson, Directory, Trusted, app, print_json, say


@app.command("work")
def work_command(
    directory: Directory,
    task: Annotated[
        str, Option("--task", metavar="K/N", help="Index and number of tasks; K starts at 0.")
    ] = "0/1",
    wait: Annotated[
        bool, Option("--wait", help="Wait for more trials while a mixopt run owns the sweep.")
    ] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Train trials of a run on any host: one task of its sweep."""
    from mixopt.pipeline import work

    number = work(directory, task, trust=trust, wait=wait, say=say)
    if as_json:
        print_json({"path": str(directory), "task": task, "signal": number or None})
    if number:
        raise typer.Exit(128 + number)
