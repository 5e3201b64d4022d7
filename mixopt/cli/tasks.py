"""Commands of downstream tasks: score, export-lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import COMMAND, AsJson, Trusted, app, print_json, say, show

tasks_app = typer.Typer(
    no_args_is_help=True,
    help="Import, check, score and export downstream tasks.",
    rich_markup_mode=None,
)
app.add_typer(tasks_app, name="tasks")

TaskFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A folder of tasks: *.jsonl and tasks.yaml.")
]


@tasks_app.callback()
def _tasks() -> None:
    """Group the commands of tasks."""


@tasks_app.command("export-lm-eval")
def export_lm_eval_command(
    folder: TaskFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Write tasks for lm-eval, to run without a network."""
    from mixopt.integrations import export_lm_eval_tasks

    names = export_lm_eval_tasks(folder, out)
    if as_json:
        print_json({"folder": str(out), "tasks": names})
        return
    show("\n".join(names))
    say(f"{COMMAND}lm_eval run --include_path {out} --tasks {' '.join(names)} --log_samples ...")


@tasks_app.command("score")
def score_command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A pretraining, or a folder of transformers.")
    ],
    folder: Annotated[
        Path,
        typer.Option("--tasks", metavar="DIR", help="A folder of tasks: *.jsonl and tasks.yaml."),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="NAME", help="A checkpoint [default: the newest]."),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option(
            "--items", min=1, help="Score N items of each task, chosen by a hash of their ids."
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Score tasks with a checkpoint, or with an exported model.

    Scores are computed in float32.
    """
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
