"""Commands on a directory: logs, cancel, verify, sync, experts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from mixopt.cli.options import AsJson, Directory, Trusted, app, print_json, say, show, show_as_is

if TYPE_CHECKING:
    from mixopt.run_directory import CheckedPart, Run


@app.command("logs")
def logs_command(
    directory: Directory,
    trial: Annotated[
        str | None, Option("--trial", help="A trial, such as t0007 [default: list failed trials].")
    ] = None,
    follow: Annotated[
        bool, Option("--follow", "-f", help="Print new lines until the trial ends.")
    ] = False,
    lines: Annotated[
        int | None, Option("--lines", "-n", min=0, help="Print only the last N lines.")
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


@app.command("verify")
def verify_command(
    directory: Directory,
    deep: Annotated[
        bool, Option("--deep", help="Read large files again even if verified before.")
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


@app.command("sync")
def sync_command(
    directory: Directory,
    uri: Annotated[
        str | None, Option("--uri", help="Server or database [default: MLFLOW_TRACKING_URI].")
    ] = None,
    trust: Annotated[
        bool, Option("--trust", help="Send to the server that the run directory itself names.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send to MLflow what it does not have yet.

    Exit code 1 if something remains.
    """
    from mixopt.tracking import sync, sync_line

    result = sync(directory, uri, trust=trust, say=say)
    print_json(result.to_json()) if as_json else show(sync_line(directory, result))
    if result.trouble:
        raise typer.Exit(1)


RankCount = Annotated[
    int | None, Option("--ranks", help="Ranks of expert parallelism [default: up to 8 that fit].")
]
StepRange = Annotated[
    str | None, Option("--steps", metavar="A:B", help="Range of steps [default: the second half].")
]
ChangeStep = Annotated[
    int | None,
    Option(
        "--change",
        metavar="STEP",
        help="Compare before and after this step [default: largest change].",
    ),
]


@app.command("experts")
def experts_command(
    directory: Directory,
    ranks: RankCount = None,
    steps: StepRange = None,
    change: ChangeStep = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Show which experts serve which domain; draw the figures."""
    from mixopt.reporting import ExpertOptions, draw_experts, experts

    options = ExpertOptions.parsed(ranks, steps, change)
    found = experts(directory, options, trust=trust)
    files = draw_experts(found)
    if as_json:
        print_json({**found.as_dict(), "figures": [str(file) for file in files]})
        return
    show(found)
    say(f"figures: {', '.join(str(file) for file in files)}")
