"""Arguments and options that commands share, and functions for printing."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from typer import Argument, Option

from mixopt.errors import plain_line
from mixopt.system import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixopt.config import ObjectiveConfig

RUNS = "runs"  # default parent of run directories
COMMAND = "next: "  # prefix of a line with a command to copy
INCOMPLETE = "incomplete"  # value of --ignore for rows

app = typer.Typer(
    help="How much of each data domain should a language model see?",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Text: TypeAlias = str | None
Whole: TypeAlias = int | None
File: TypeAlias = Path | None
Words: TypeAlias = list[str] | None


def option(
    name: str, help: str, metavar: str | None = None, *, minimum: float | None = None
) -> Any:
    """Return an option of a command; `--lines -n` has a short name, too."""
    return Option(*name.split(), help=help, metavar=metavar, min=minimum)


ConfigPath = Annotated[
    Path,
    Argument(metavar="CONFIG|RUN", help="The experiment's YAML file, or the directory of its run."),
]
Directory = Annotated[Path, Argument(metavar="RUN", help="A run directory.")]
OutPath = Annotated[File, option("--out", "The run directory [default: runs/<name of CONFIG>].")]
Overrides = Annotated[
    Words, option("--set", "Override a field of CONFIG; repeatable.", "A.B=VALUE")
]
Targets = Annotated[
    Words, option("--target", "This loss; repeatable or a glob, for their mean.", "LOSS")
]
ObjectivePath = Annotated[
    File, option("--objective", "YAML of an objective, in the form of CONFIG.", "FILE")
]
LimitsPath = Annotated[
    File, option("--constraints", "YAML of changes to the run's constraints.", "FILE")
]
SizesPath = Annotated[
    File, option("--inventory", "YAML of tokens by domain [default: the run's].", "FILE")
]
FullLength = Annotated[Text, option("--tokens", "Tokens of the full run: 1T, 50B or 25e9.", "N")]
Batch = Annotated[Text, option("--batch", "Sequences of a batch x tokens of a sequence.", "SxT")]
Ignore = Annotated[
    Words,
    option(
        "--ignore",
        "Ignore a column, or rows that lack a number; repeatable.",
        f"COLUMN|{INCOMPLETE}",
    ),
]
AsJson = Annotated[bool, option("--json", "Print the answer as JSON.")]
Trusted = Annotated[
    bool, option("--trust", "Trust the directory's own record: import, run and follow its names.")
]


def chosen_objective(
    targets: Sequence[str] | None, file: Path | None
) -> ObjectiveConfig | tuple[str, ...] | None:
    """Return the objective: losses by name or glob, or that of a file; None if neither is given."""
    from mixopt.config import read_objective
    from mixopt.errors import ConfigError

    if targets and file is not None:
        raise ConfigError("--target and --objective both define the objective; give one of them")
    if file is not None:
        return read_objective(file)
    return tuple(targets) if targets else None


def directory_of(config: Path, out: Path | None) -> Path:
    """Return --out, or the directory of a run's own config, or `runs/<name of CONFIG>`."""
    from mixopt.errors import MixoptError
    from mixopt.system import name_fault, read_yaml

    if out is not None:
        return out
    if config.name == "config.yaml" and (config.parent / "steps.json").exists():
        return config.parent
    content = None
    with suppress(MixoptError):  # reported when the configuration is loaded
        content = read_yaml(config)
    name = content.get("name") if isinstance(content, dict) else None
    if not isinstance(name, str) or name_fault(name) is not None:
        name = config.stem
    return Path(RUNS) / name


def config_of(source: Path) -> Path:
    """Return the configuration file; for a run directory, its config.yaml."""
    from mixopt.errors import ConfigError

    if not source.is_dir():
        return source
    if not (source / "config.yaml").is_file():
        raise ConfigError(
            f"{source}: is not a run directory, it has no config.yaml; give an experiment's YAML,"
            " or the directory of a run"
        )
    return source / "config.yaml"


def print_json(content: Any) -> None:
    """Print plain values as JSON; NaN and infinity become null."""
    print(json.dumps(_plain(content), indent=1, allow_nan=False))


def print_answer(as_json: bool, content: Any, text: object) -> None:
    """Print an answer: its plain values as JSON, or its text."""
    if as_json:
        print_json(content)
    else:
        show(text)


def show(text: object) -> None:
    """Print an answer, wrapped, with control characters escaped."""
    print("\n".join(map(fitted, str(text).split("\n"))))


def show_as_is(text: str) -> None:
    """Print text to copy into a file, unwrapped: a script, YAML, a log."""
    print("\n".join(map(plain_line, text.split("\n"))))


def say(line: str) -> None:
    """Write a line to standard error, wrapped."""
    sys.stderr.write(fitted(line) + "\n")


def complain(message: str) -> None:
    """Write an error to standard error, wrapped."""
    say(f"mixopt: {message}")


def fitted(line: str) -> str:
    """Escape control characters and wrap a line to the terminal, except a command to copy."""
    line = plain_line(line)
    return line if line.startswith(COMMAND) else wrapped(line)


def _plain(value: Any) -> Any:
    """Return values for JSON, which has no NaN and no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def left_out(ignore: list[str] | None) -> dict[str, Any]:
    """Return the arguments of table readers that `--ignore` stands for."""
    names = ignore or []
    columns = [name for name in names if name != INCOMPLETE]
    return {"ignore": columns, "drop_incomplete": INCOMPLETE in names}
