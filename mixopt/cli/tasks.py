"""The command of downstream tasks: score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from mixopt.cli.options import AsJson, Trusted, app, print_json, show

tasks_app = typer.Typer(
    no_args_is_help=True,
    help="Score downstream tasks.",
    rich_markup_mode=None,
)
app.add_typer(tasks_app, name="tasks")


@tasks_app.callback()
def _tasks() -> None:
    """Group the commands of tasks."""


@tasks_app.command("score")
def score_command(
    run: Annotated[
        Path, Argument(metavar="RUN", help="A pretraining, or a folder of transformers.")
    ],
    folder: Annotated[
        Path,
        Option("--tasks", metavar="DIR", help="A folder of tasks: a *.jsonl for each."),
    ],
    checkpoint: Annotated[
        str | None,
        Option("--checkpoint", metavar="NAME", help="A checkpoint [default: the newest]."),
    ] = None,
    items: Annotated[
        int | None,
        Option("--items", min=1, help="Score N items of each task, chosen by a hash of their ids."),
    ] = None,
    device: Annotated[str, Option("--device", help="auto, cpu or cuda.")] = "auto",
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Score tasks with a checkpoint of pretraining or an export.

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
