"""The command for microanneals: candidate sources against a matched control."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.options import (
    COMMAND,
    AsJson,
    ConfigPath,
    ExecutorName,
    OutPath,
    Overrides,
    Retry,
    Trusted,
    app,
    config_of,
    directory_of,
    print_json,
    print_run,
    say,
    show,
    with_executor,
)

if TYPE_CHECKING:
    from mixopt.run_directory import Run


@app.command("anneal")
def anneal_command(
    config: ConfigPath,
    sources: Annotated[
        str | None,
        typer.Option("--sources", metavar="A,B,...", help="Domains to compare, one anneal each."),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option("--share", help="Share of the tokens from a source [default: 0.5]."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", help="Seeds for the control and each source [default: 3]."),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", help="YAML of the base's weights [default: natural]."),
    ] = None,
    combine: Annotated[
        bool,
        typer.Option("--combine", help="Then fit the sources' shares, propose and validate."),
    ] = False,
    rounds: Annotated[
        str | None,
        typer.Option(
            "--rounds", metavar="N,N", help="With --combine: mixtures of later rounds, such as 8,8."
        ),
    ] = None,
    out: OutPath = None,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    retry_failed: Retry = False,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Compare each candidate source with the base mixture alone."""
    from mixopt.pipeline import AnnealAsked, anneal

    source = config_of(config)
    asked = AnnealAsked(_names(sources), share, seeds, base, _numbers(rounds))
    run = anneal(
        source,
        directory_of(source, out),
        asked,
        combine=combine,
        overrides=with_executor(overrides, executor),
        retry_failed=retry_failed,
        trust=trust,
        say=say,
    )
    given = [str(config), *([] if config.is_dir() else ["--out", str(run.path)])]
    given += [part for one in overrides or () for part in ("--set", one)]
    _print(run, f"mixopt anneal {shlex.join(given)}", combine, as_json)


def _print(run: Run, command: str, combine: bool, as_json: bool) -> None:
    from mixopt.pipeline import combining
    from mixopt.reporting import anneals_json, anneals_text, run_summary

    if as_json:
        combined = {"combined": run_summary(run)} if combine else {}
        print_json({**anneals_json(run), **combined})
        return
    show(anneals_text(run))
    if combine:
        show("")
        print_run(run, as_json)
    elif (options := combining(run)) is not None:
        show(f"{COMMAND}{command} {options}")
    else:
        show("To combine them, add sources: a fit needs 3 of them beside the control.")


def _names(option: str | None) -> tuple[str, ...] | None:
    if option is None:
        return None
    return tuple(name.strip() for name in option.split(",") if name.strip())


def _numbers(option: str | None) -> tuple[int, ...]:
    """Read `8,8`.

    Raises:
        ConfigError: It is of another form.
    """
    from mixopt.errors import ConfigError

    parts = [] if option is None else option.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--rounds {option}: expected counts of mixtures, such as 8,8")
    return tuple(map(int, parts))
