"""Commands of downstream tasks: score, export-lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import AsJson, app, print_json, say, show

tasks_app = typer.Typer(no_args_is_help=True, help="Downstream tasks.", rich_markup_mode=None)
app.add_typer(tasks_app, name="tasks")

TaskFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A folder of tasks: *.jsonl, tasks.yaml.")
]


@tasks_app.callback()
def _tasks() -> None:
    """Keep each command one of the group."""


@tasks_app.command("export-lm-eval")
def export_lm_eval_command(
    folder: TaskFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the YAML goes.")],
    as_json: AsJson = False,
) -> None:
    """Write tasks as YAML and JSONL that lm-eval runs without a network."""
    from mixopt.integrations import export_lm_eval_tasks

    names = export_lm_eval_tasks(folder, out)
    if as_json:
        print_json({"folder": str(out), "tasks": names})
        return
    show("\n".join(names))
    say(f"next: lm_eval run --include_path {out} --tasks {' '.join(names)} --log_samples ...")
