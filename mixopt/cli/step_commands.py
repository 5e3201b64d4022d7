"""Commands of an experiment: all steps, one step, how far it is."""

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
    next_step,
    print_json,
    print_run,
    say,
    show,
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
    """Do all steps in order; run it again and it goes on where it was."""
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
    ) -> None:
        from mixopt import pipeline

        function: Callable[..., Run] = getattr(pipeline, step)
        config, given = config_of(config), overrides or ()
        run = function(config, directory_of(config, out), overrides=given, trust=trust, say=say)
        next_step(run)

    app.command(step, help=description)(command)


_add_step("prepare", "Read the documents; write token shards.")
_add_step("design", "Choose the mixtures to try.")
_add_step("report", "Write report.html.")


@app.command("sweep")
def sweep_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script for the scheduler; submit nothing.")
    ] = False,
    trust: Trusted = False,
) -> None:
    """Train a proxy on each mixture; resumable."""
    from mixopt import pipeline

    config = config_of(config)
    directory, given = directory_of(config, out), with_executor(overrides, executor)
    if dry_run:
        script = pipeline.sweep_script(config, directory, overrides=given, trust=trust)
        show(script.rstrip("\n"))
    else:
        next_step(pipeline.sweep(config, directory, overrides=given, trust=trust, say=say))


@app.command("validate")
def validate_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    trust: Trusted = False,
) -> None:
    """Train the proposal against its baselines."""
    from mixopt import pipeline

    config = config_of(config)
    directory, given = directory_of(config, out), with_executor(overrides, executor)
    next_step(pipeline.validate(config, directory, overrides=given, trust=trust, say=say))


@app.command("status")
def status_command(
    directory: Directory,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Say what is done, running and failed, and how long is left."""
    from mixopt.pipeline import run_status, status_lines
    from mixopt.run_directory import load_run

    status = run_status(load_run(directory, trust=trust))
    if as_json:
        print_json(status)
    else:
        for line in status_lines(status):
            show(line)
