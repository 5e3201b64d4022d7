"""The command line: parse, call the library, print the answer and the next step.

A mistake of the user's is one line on standard error and exit code 2. Everything but typer is
imported by the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixopt.errors import ConfigError, MixoptError

if TYPE_CHECKING:
    from mixopt.run_directory import Run

app = typer.Typer(
    help="How much of each data domain should a language model see?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment's YAML file.")]
OutPath = Annotated[
    Path | None,
    typer.Option("--out", help="The run directory; runs/<name of CONFIG> if not given."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override a field; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
From = Annotated[str | None, typer.Option("--from", metavar="STEP", help="Redo from this step on.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Train failed trials again.")]


def run_command_line() -> None:
    """Run a command; turn our errors into one line and exit code 2."""
    try:
        app()
    except MixoptError as error:
        sys.stderr.write(f"mixopt: {error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("mixopt: interrupted; the same command goes on from here\n")
        raise SystemExit(130) from None


@app.command("run")
def run_command(
    config: ConfigPath,
    out: OutPath = None,
    overrides: Overrides = None,
    redo: From = None,
    retry_failed: Retry = False,
    as_json: AsJson = False,
) -> None:
    """Do all steps in order; run it again and it goes on where it was."""
    from mixopt import steps

    _check_step(redo)
    run = steps.run(
        config,
        _directory(config, out),
        overrides=overrides or (),
        redo=redo,
        retry_failed=retry_failed,
        say=_say,
    )
    _print_run(run, as_json)


def _add_step(step: str, description: str) -> None:
    def command(
        config: ConfigPath,
        out: OutPath = None,
        overrides: Overrides = None,
    ) -> None:
        from mixopt import steps

        function: Callable[..., Run] = getattr(steps, step)
        run = function(config, _directory(config, out), overrides=overrides or (), say=_say)
        _next_step(run)

    app.command(step, help=description)(command)


_add_step("prepare", "Read the documents; write token shards.")
_add_step("design", "Choose the mixtures to try.")
_add_step("sweep", "Train a proxy on each mixture; resumable.")
_add_step("fit", "Fit the regressors; choose one by cross-validation.")
_add_step("propose", "Search for the mixture with the best predicted objective.")
_add_step("validate", "Train the proposal against its baselines.")
_add_step("report", "Write report.html.")


@app.command("status")
def status_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")],
    as_json: AsJson = False,
) -> None:
    """Say what is done, running and failed, and how long is left."""
    from mixopt.run_directory import load_run
    from mixopt.status import run_status, status_lines

    status = run_status(load_run(directory))
    if as_json:
        _print_json(status)
    else:
        for line in status_lines(status):
            print(line)


def _directory(config: Path, out: Path | None) -> Path:
    return out if out is not None else Path("runs") / config.stem


def _check_step(step: str | None) -> None:
    from mixopt.errors import did_you_mean
    from mixopt.run_directory import STEPS

    if step is not None and step not in STEPS:
        raise ConfigError(f"--from {step}: no such step{did_you_mean(step, STEPS)}")


def _print_run(run: Run, as_json: bool) -> None:
    from mixopt.summary import run_summary, summary_text

    if as_json:
        _print_json(run_summary(run))
    else:
        print(summary_text(run))


def _next_step(run: Run) -> None:
    from mixopt.run_directory import STEPS

    waiting = [step for step in STEPS if not run.is_done(step)]
    if waiting:
        print(f"next: {run.command(waiting[0])}")
    else:
        print(f"all steps are done: {run.path / 'report.html'}")


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=1))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
