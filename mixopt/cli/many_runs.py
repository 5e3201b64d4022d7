"""Commands on several runs: list, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.completion import complete_directory
from mixopt.cli.options import AsJson, Trusted, app, print_json, show

RunDirectory = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run directory.", autocompletion=complete_directory),
]


@app.command("list")
def list_command(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The folder of the runs.")
    ] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs under a folder, newest first."""
    from mixopt.pipeline import list_runs, listed_text

    found = list_runs(folder)
    if as_json:
        print_json({"folder": str(folder), "runs": [run.to_json() for run in found]})
    else:
        show(listed_text(found, folder))


@app.command("compare")
def compare_command(
    left: RunDirectory, right: RunDirectory, trust: Trusted = False, as_json: AsJson = False
) -> None:
    """Compare two runs: configuration, mixtures, fits, gains."""
    from mixopt.pipeline import compare_runs, comparison_text
    from mixopt.run_directory import load_run

    found = compare_runs(load_run(left, trust=trust), load_run(right, trust=trust))
    print_json(found.to_json()) if as_json else show(comparison_text(found))
