"""Arguments and options that commands share, and what they print with."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from mixopt.errors import plain_line
from mixopt.system import wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mixopt.config import ObjectiveConfig, RiskConfig
    from mixopt.objective import Direction, Scale, Unit
    from mixopt.run_directory import Run

RUNS = "runs"  # where run directories are by default
MOST = 200  # that are offered


def complete_directory(incomplete: str) -> list[str]:
    """Return the run directories under `runs/` and the paths that begin with what is typed."""
    folder = Path(incomplete).parent if incomplete else Path(RUNS)
    if incomplete.endswith("/"):
        folder = Path(incomplete)
    places = [folder] if folder == Path(RUNS) else [Path(RUNS), folder]
    found = dict.fromkeys(path for place in places for path in _offered(place))
    return [text for text in found if text.startswith(incomplete)][:MOST]


def _offered(folder: Path) -> list[str]:
    """Return the runs of a folder, else its folders and YAML files."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    runs = [str(path) for path in entries if (path / "config.yaml").is_file()]
    others = [f"{path}/" for path in entries if path.is_dir() and str(path) not in runs]
    files = [str(path) for path in entries if path.suffix in {".yaml", ".yml"}]
    return [text for text in (*runs, *files, *others) if not Path(text).name.startswith(".")]


COMMAND = "next: "  # begins a line with a command to copy

# The commands in the order of their use; any other comes after them.
ORDER = (
    *("init", "check", "count", "run", "status"),
    *("prepare", "design", "sweep", "fit", "propose", "validate", "report"),
    *("predict", "readiness", "evaluate", "export", "schedule", "simulate", "pretrain"),
    *("experts", "logs", "cancel", "verify", "sync", "tokens", "tasks"),
)


class OrderedCommands(TyperGroup):
    """Commands in the order of their use."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names of the commands, as the help lists them."""
        known = super().list_commands(ctx)
        return sorted(known, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=OrderedCommands,
    help="How much of each data domain should a language model see?",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[
    Path,
    Argument(
        metavar="CONFIG|RUN",
        help="The experiment's YAML file, or the directory of its run.",
        autocompletion=complete_directory,
    ),
]
OutPath = Annotated[
    Path | None, Option("--out", help="The run directory [default: runs/<name of CONFIG>].")
]
Overrides = Annotated[
    list[str] | None,
    Option("--set", metavar="A.B=VALUE", help="Override a field of CONFIG; repeatable."),
]
ObjectivePath = Annotated[
    Path | None,
    Option("--objective", metavar="FILE", help="YAML of an objective, in the form of CONFIG."),
]
LimitsPath = Annotated[
    Path | None, Option("--constraints", help="YAML of constraints, in the form of CONFIG.")
]
SizesPath = Annotated[
    Path | None, Option("--inventory", help="YAML of tokens by domain [default: the corpus's].")
]
FullLength = Annotated[
    float | None, Option("--tokens", help="Tokens of the full run, such as 25e9.")
]
Directory = Annotated[
    Path, Argument(metavar="RUN", help="A run directory.", autocompletion=complete_directory)
]
MixturesPath = Annotated[
    Path | None, Option("--mixtures", help="CSV or Parquet of weights by domain.")
]
LossesPath = Annotated[
    Path | None, Option("--losses", help="CSV or Parquet of losses by evaluation domain.")
]
TrialsPath = Annotated[
    Path | None, Option("--trials", help="A table of trials, such as `mixopt import` writes.")
]
Key = Annotated[
    str | None,
    Option("--key", metavar="COLUMN", help="Column that joins the tables [default: detected]."),
]
Tolerance = Annotated[
    float,
    Option("--tolerance", help="How far the sum of the weights may be from 1 before rescaling."),
]
Ignore = Annotated[
    list[str] | None, Option("--ignore", metavar="COLUMN", help="Ignore this column; repeatable.")
]
DropIncomplete = Annotated[
    bool, Option("--drop-incomplete", help="Leave out rows that lack a number, and list them.")
]
PilotMixtures = Annotated[
    Path | None, Option("--pilot-mixtures", help="Like --mixtures, for runs at the target size.")
]
PilotLosses = Annotated[
    Path | None, Option("--pilot-losses", help="Like --losses, for runs at the target size.")
]
PilotTrials = Annotated[
    Path | None, Option("--pilot-trials", help="Like --trials, for runs at the target size.")
]
AtParameters = Annotated[
    float | None,
    Option("--at-parameters", help="Predict at this model size, such as 1e9 (regressor: scaling)."),
]
AtTokens = Annotated[
    float | None,
    Option("--at-tokens", help="Predict at this many tokens, such as 25e9 (regressor: scaling)."),
]
UnitName = Annotated[
    str | None,
    Option("--unit", metavar="UNIT", help="Unit of the losses: nats_per_token or bits_per_byte."),
]
Targets = Annotated[
    list[str] | None,
    Option("--target", metavar="LOSS", help="This loss; repeatable or a glob, for their mean."),
]
Fitted = Annotated[
    Path,
    Argument(
        metavar="RUN|FIT",
        help="A run directory, or a folder with a fit.",
        autocompletion=complete_directory,
    ),
]
AsJson = Annotated[bool, Option("--json", help="Print the answer as JSON.")]
Trusted = Annotated[
    bool,
    Option(
        "--trust", help="Trust the directory's own record: import, run and follow what it names."
    ),
]
From = Annotated[
    str | None, Option("--from", metavar="STEP", help="Redo this step and those after it.")
]
ExecutorName = Annotated[
    str | None,
    Option(
        "--executor", metavar="NAME", help="local, ray, slurm or folder; overrides sweep.executor."
    ),
]
Retry = Annotated[bool, Option("--retry-failed", help="Train failed trials again.")]


def directions(options: Sequence[str]) -> dict[str, Direction]:
    """Read `accuracy=higher` each."""
    from mixopt.errors import ConfigError
    from mixopt.objective import Direction

    found: dict[str, Direction] = {}
    for option in options:
        name, _, which = option.rpartition("=")
        if not name or which not in get_args(Direction):
            raise ConfigError(
                f"--direction {option}: expected TARGET=higher or TARGET=lower, such as"
                " accuracy=higher"
            )
        found[name] = cast("Direction", which)
    return found


def asked_objective(
    targets: Sequence[str], file: Path | None
) -> ObjectiveConfig | tuple[str, ...] | None:
    """Return what is minimised: losses by name or glob, or what a file has; None for neither."""
    from mixopt.config import read_objective
    from mixopt.errors import ConfigError

    if targets and file is not None:
        raise ConfigError("--target and --objective both define the objective; give one of them")
    return tuple(targets) or None if file is None else read_objective(file)


def risk_of(option: str | None) -> RiskConfig | None:
    """Read `std=1` or `quantile=0.9`."""
    from mixopt.config import RiskConfig
    from mixopt.errors import ConfigError

    if option is None:
        return None
    name, _, number = option.partition("=")
    try:
        return RiskConfig.model_validate({name: float(number)})
    except ValueError:
        raise ConfigError(
            f"--risk {option}: expected std=K with K above 0, or quantile=Q with Q between 0.5"
            " and 1"
        ) from None


def scale_name(name: str) -> Scale:
    """Check the name of a scale."""
    from mixopt.config import one_of
    from mixopt.objective import Scale

    return cast("Scale", one_of("--scale", name, get_args(Scale)))


def unit_name(name: str | None) -> Unit | None:
    """Check the name of a unit."""
    from mixopt.config import one_of
    from mixopt.objective import Unit

    return None if name is None else cast("Unit", one_of("--unit", name, get_args(Unit)))


def directory_of(config: Path, out: Path | None) -> Path:
    """Return the run directory, `runs/<name of CONFIG>` where none is given."""
    if out is None and config.name == "config.yaml" and (config.parent / "steps.json").exists():
        return config.parent
    return out if out is not None else Path("runs") / config.stem


def config_of(source: Path) -> Path:
    """Return the configuration file: that of a run where its directory is given."""
    from mixopt.errors import ConfigError

    if not source.is_dir():
        return source
    if not (source / "config.yaml").is_file():
        raise ConfigError(
            f"{source}: is not a run directory, it has no config.yaml; give an experiment's YAML,"
            " or the directory of a run"
        )
    return source / "config.yaml"


def with_executor(overrides: Sequence[str] | None, executor: str | None) -> list[str]:
    """Return overrides, with `sweep.executor` where it is given by an option of its own."""
    return [*(overrides or ()), *([] if executor is None else [f"sweep.executor={executor}"])]


def check_own(source: Path, trust: bool) -> None:
    """Check that a configuration is the user's own, and not the record of somebody's directory."""
    from mixopt.errors import RunError

    recorded = source.name == "config.yaml" and (source.parent / "steps.json").exists()
    if not trust and (recorded or source.is_dir()):
        raise RunError(
            f"{source}: is the record of a run directory, and would be imported and run; if you"
            " trust whoever made this directory, add --trust"
        )


def run_step(
    step: str,
    config: Path,
    out: Path | None,
    overrides: Sequence[str] | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Run one step of an experiment, and print what it found."""
    from mixopt import pipeline

    config = config_of(config)
    function: Callable[..., Run] = getattr(pipeline, step)
    directory = directory_of(config, out)
    run = function(config, directory, overrides=overrides or (), trust=trust, say=say)
    print_step(run, step, as_json)


def print_run(run: Run, as_json: bool) -> None:
    """Print the answer of a finished run."""
    from mixopt.reporting import run_summary, summary_text

    if as_json:
        print_json(run_summary(run))
    else:
        show(summary_text(run))


def print_step(run: Run, step: str, as_json: bool) -> None:
    """Print what a step found as JSON, or the command of the next one."""
    from mixopt.reporting import step_result
    from mixopt.run_directory import STEPS

    done = [step.name for step in STEPS if run.is_done(step.name)]
    waiting = [step.name for step in STEPS if step.name not in done]
    command = run.command(waiting[0]) if waiting else None
    if as_json:
        steps = {"done": done, "waiting": waiting, "next": command}
        print_json({"path": str(run.path), "step": step, "result": step_result(run, step), **steps})
    elif command is not None:
        show(f"{COMMAND}{command}")
    else:
        show(f"all steps are done: {run.path / 'report.html'}")


def print_json(content: Mapping[str, Any]) -> None:
    """Print plain values as JSON; a number that is none is null."""
    print(json.dumps(_plain(content), indent=1, allow_nan=False))


def show(text: object) -> None:
    """Print an answer, wrapped; what it quotes of a run directory cannot steer the terminal."""
    print("\n".join(fitted(line) for line in str(text).split("\n")))


def show_as_is(text: object) -> None:
    """Print what somebody may copy into a file, unwrapped: a script, YAML, a log."""
    print("\n".join(plain_line(line) for line in str(text).split("\n")))


def say(line: str) -> None:
    """Write a line to standard error, wrapped."""
    sys.stderr.write(fitted(line) + "\n")


def complain(message: str) -> None:
    """Write what is wrong to standard error, wrapped."""
    say(f"mixopt: {message}")


def show_version(asked: bool) -> None:
    """Print the version and end, where that is asked."""
    if asked:
        from mixopt.system import __version__

        show(f"mixopt {__version__}")
        raise typer.Exit


def fitted(line: str) -> str:
    """Make a line plain and as wide as the terminal; a command to copy stays whole."""
    line = plain_line(line)
    return line if line.startswith(COMMAND) else wrapped(line)


def _plain(value: Any) -> Any:
    """Return values that every reader of JSON takes: it has no NaN and no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
