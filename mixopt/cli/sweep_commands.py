"""Commands for a running sweep: logs, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.options import AsJson, Directory, Trusted, app, print_json, say, show, show_as_is

if TYPE_CHECKING:
    from mixopt.run_directory import Run


@app.command("logs")
def logs_command(
    directory: Directory,
    trial: Annotated[
        str | None,
        typer.Option("--trial", help="A trial, such as t0007 [default: list failed trials]."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the trial ends.")
    ] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, help="Print only the last N lines.")
    ] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Print the log of a trial, or list the failed trials."""
    from mixopt.errors import ConfigError
    from mixopt.pipeline import find_log, follow_log, missing_log, not_asked
    from mixopt.run_directory import load_run

    run = load_run(directory, trust=trust)
    if trial is None:
        if follow or lines is not None:
            raise ConfigError("--follow and --lines need --trial, such as t0007")
        _list_failed(run, as_json)
        return
    if follow and as_json:
        raise ConfigError("--follow and --json do not go together; give one of them")
    log = find_log(run, trial)
    if as_json:
        where = None if log is None else str(log.part.path)
        content = None if log is None else list(log.lines(lines))
        print_json({"trial": trial, "log": where, "lines": content})
        return
    if log is not None:
        say(f"{log.part.path}:")
    if follow and (unknown := not_asked(run)) is not None:
        say(unknown)
    found = follow_log(run, trial, lines) if follow else None if log is None else log.lines(lines)
    for line in found or ():
        show_as_is(line)
    if found is None:
        show(missing_log(run, trial))


def _list_failed(run: Run, as_json: bool) -> None:
    from mixopt.pipeline import failed_trials, logs_of_workers

    failed, logs = failed_trials(run), logs_of_workers(run)
    if as_json:
        print_json({"path": str(run.path), "failed": failed, "logs": logs})
        return
    for entry in failed:
        show(f"{entry['trial']}  {entry['status']}: {entry['reason'] or 'no reason recorded'}")
        show(f"    {entry['log'] or 'no log found here'}")
    if not failed:
        show("no trial has failed")
    show(f"logs of workers: {', '.join(logs)}" if logs else "no logs of workers")
    if failed:
        show(f"next: mixopt logs {run.path} --trial {failed[0]['trial']}")


@app.command("cancel")
def cancel_command(directory: Directory, trust: Trusted = False, as_json: AsJson = False) -> None:
    """Stop a sweep and its jobs.

    Exit code 1 if some are still running.
    """
    from dataclasses import asdict

    from mixopt.pipeline import cancel, cancel_lines
    from mixopt.run_directory import load_run

    run = load_run(directory, trust=trust)
    found = cancel(run)
    if as_json:
        print_json({"path": str(run.path), **asdict(found)})
    else:
        for line in cancel_lines(run, found):
            show(line)
    if found.left:
        raise typer.Exit(1)
