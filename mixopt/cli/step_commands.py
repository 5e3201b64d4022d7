"""Commands of an experiment: all steps, one step, its status."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.options import (
    AsJson,
    ConfigPath,
    Directory,
    ExecutorName,
    From,
    OutPath,
    Overrides,
    Retry,
    Trusted,
    app,
    config_of,
    directory_of,
    print_json,
    print_run,
    print_step,
    say,
    show,
    show_as_is,
    with_executor,
)

if TYPE_CHECKING:
    from mixopt.run_directory import Run


@app.command("run")
def run_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    redo: From = None,
    retry_failed: Retry = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Run all steps in order; the same command resumes."""
    from mixopt import pipeline

    config = config_of(config)
    run = pipeline.run(
        config,
        directory_of(config, out),
        overrides=with_executor(overrides, executor),
        redo=redo,
        retry_failed=retry_failed,
        trust=trust,
        say=say,
    )
    print_run(run, as_json)


def _add_step(step: str, description: str) -> None:
    def command(
        config: ConfigPath,
        out: OutPath = None,
        overrides: Overrides = None,
        trust: Trusted = False,
        as_json: AsJson = False,
    ) -> None:
        from mixopt import pipeline

        function: Callable[..., Run] = getattr(pipeline, step)
        config, given = config_of(config), overrides or ()
        run = function(config, directory_of(config, out), overrides=given, trust=trust, say=say)
        print_step(run, step, as_json)

    app.command(step, help=description)(command)


_add_step("prepare", "Read and tokenise the documents; write token shards.")
_add_step("design", "Choose the mixtures to try.")
_add_step("report", "Write report.html.")


@app.command("sweep")
def sweep_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the scheduler's script without submitting it.")
    ] = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Train a proxy on each mixture; the same command resumes."""
    from mixopt import pipeline

    config = config_of(config)
    directory, given = directory_of(config, out), with_executor(overrides, executor)
    if dry_run:
        script = pipeline.sweep_script(config, directory, overrides=given, trust=trust)
        print_json({"script": script}) if as_json else show_as_is(script.rstrip("\n"))
    else:
        run = pipeline.sweep(config, directory, overrides=given, trust=trust, say=say)
        print_step(run, "sweep", as_json)


@app.command("validate")
def validate_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Train proposal and baselines; write the recommendation."""
    from mixopt import pipeline

    config = config_of(config)
    directory, given = directory_of(config, out), with_executor(overrides, executor)
    run = pipeline.validate(config, directory, overrides=given, trust=trust, say=say)
    print_step(run, "validate", as_json)


@app.command("status")
def status_command(
    directory: Directory,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Show what is done and running, the time left, the verdict."""
    from mixopt.pipeline import run_status, status_lines
    from mixopt.run_directory import load_run

    status = run_status(load_run(directory, trust=trust))
    if as_json:
        print_json(status)
    else:
        for line in status_lines(status):
            show(line)
