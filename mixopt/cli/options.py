"""Arguments and options that commands share, and what they print with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]
MixturesPath = Annotated[
    Path | None, typer.Option("--mixtures", help="CSV or Parquet of weights by domain.")
]
LossesPath = Annotated[
    Path | None, typer.Option("--losses", help="CSV or Parquet of losses by evaluation domain.")
]
TrialsPath = Annotated[
    Path | None, typer.Option("--trials", help="A table of trials, as `mixopt import` writes.")
]
Key = Annotated[
    str | None, typer.Option("--key", metavar="COLUMN", help="Join the tables by it; found.")
]
Tolerance = Annotated[
    float, typer.Option("--tolerance", help="How far from 1 weights may add up; they are rescaled.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="COLUMN", help="Neither weight nor loss; repeatable."),
]
DropIncomplete = Annotated[
    bool, typer.Option("--drop-incomplete", help="Leave out rows without all numbers, and say so.")
]
PilotMixtures = Annotated[
    Path | None, typer.Option("--pilot-mixtures", help="As --mixtures, of runs at the target size.")
]
PilotLosses = Annotated[
    Path | None, typer.Option("--pilot-losses", help="As --losses, of runs at the target size.")
]
PilotTrials = Annotated[
    Path | None, typer.Option("--pilot-trials", help="As --trials, of runs at the target size.")
]
AtParameters = Annotated[
    float | None, typer.Option("--at-parameters", help="Predict at so many, such as 1e9 (scaling).")
]
AtTokens = Annotated[
    float | None, typer.Option("--at-tokens", help="Predict at so many, such as 25e9 (scaling).")
]
UnitName = Annotated[
    str | None, typer.Option("--unit", help="nats_per_token or bits_per_byte: of the losses.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
From = Annotated[str | None, typer.Option("--from", metavar="STEP", help="Redo from this step on.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Train failed trials again.")]


def directory_of(config: Path, out: Path | None) -> Path:
    """Return the run directory, `runs/<name of CONFIG>` where none is given."""
    return out if out is not None else Path("runs") / config.stem


def print_run(run: Run, as_json: bool) -> None:
    """Print the answer of a finished run."""
    from mixopt.reporting import run_summary, summary_text

    if as_json:
        print_json(run_summary(run))
    else:
        print(summary_text(run))


def next_step(run: Run) -> None:
    """Print the command of the next step."""
    from mixopt.run_directory import STEPS

    waiting = [step.name for step in STEPS if not run.is_done(step.name)]
    if waiting:
        print(f"next: {run.command(waiting[0])}")
    else:
        print(f"all steps are done: {run.path / 'report.html'}")


def print_json(content: dict[str, Any]) -> None:
    """Print plain values as JSON."""
    print(json.dumps(content, indent=1))


def say(line: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(line + "\n")
