"""Commands of downstream tasks: score, export-lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import AsJson, Trusted, app, print_json, say, show

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


@tasks_app.command("score")
def score_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a pretraining.")],
    folder: Annotated[
        Path, typer.Option("--tasks", metavar="DIR", help="A folder of tasks: *.jsonl, tasks.yaml.")
    ],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="NAME", help="The newest if not given.")
    ] = None,
    items: Annotated[
        int | None, typer.Option("--items", min=1, help="Of each task, by a hash of their ids.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Score tasks with a checkpoint of `mixopt pretrain`, in float32."""
    from mixopt.config import one_of
    from mixopt.pretraining import score_tasks, scores_text

    scores = score_tasks(
        run,
        folder,
        checkpoint=checkpoint,
        items=items,
        device=one_of("--device", device, ("auto", "cpu", "cuda")),
        trust=trust,
    )
    print_json(scores.to_json()) if as_json else show(scores_text(scores))
