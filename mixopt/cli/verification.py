"""The command that checks a directory against its manifest: verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.options import AsJson, Directory, Trusted, app, print_json, show

if TYPE_CHECKING:
    from mixopt.run_directory import CheckedPart


@app.command("verify")
def verify_command(
    directory: Directory,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read large files again even if verified before.")
    ] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Check every file against its hash.

    Exit code 1 if one is damaged.
    """
    from mixopt.reporting import verification_text

    parts = _parts(directory, deep=deep, trust=trust)
    if as_json:
        print_json({"path": str(directory), "parts": [part.to_json() for part in parts]})
    else:
        show(verification_text(parts))
    if any(part.faults for part in parts):
        raise typer.Exit(1)


def _parts(directory: Path, *, deep: bool, trust: bool) -> list[CheckedPart]:
    """Check a directory by what it is of: a pretraining, a run, or a fit of tables."""
    from mixopt.pipeline import verify_fit_folder
    from mixopt.pretraining import is_pretraining, verify_pretraining
    from mixopt.run_directory import load_run, verify_run
    from mixopt.system import check_links

    if not trust:
        check_links(directory)
    if is_pretraining(directory):
        return verify_pretraining(directory)
    if (directory / "config.yaml").exists():
        return verify_run(load_run(directory, trust=trust), deep=deep)
    return verify_fit_folder(directory)
