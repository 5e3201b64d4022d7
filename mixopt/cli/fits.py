"""Commands of fits and tables: fit, evaluate, import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.options import (
    COMMAND,
    AsJson,
    AtParameters,
    AtTokens,
    Directory,
    DropIncomplete,
    Ignore,
    Key,
    LossesPath,
    MixturesPath,
    ObjectivePath,
    OutPath,
    Overrides,
    PilotLosses,
    PilotMixtures,
    PilotTrials,
    TableFiles,
    Tolerance,
    TrialsPath,
    Trusted,
    UnitName,
    app,
    asked_objective,
    complete_directory,
    config_of,
    directions,
    directory_of,
    print_json,
    print_step,
    say,
    scale_name,
    show,
    table_options,
)
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixopt.config import ObjectiveConfig
    from mixopt.trials import TableOptions


@app.command("fit")
def fit_command(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG|RUN",
            help="The experiment's YAML file, or the directory of its run.",
            autocompletion=complete_directory,
        ),
    ] = None,
    out: OutPath = None,
    overrides: Overrides = None,
    mixtures: MixturesPath = None,
    losses: LossesPath = None,
    regressor: Annotated[
        list[str] | None,
        typer.Option(
            "--regressor", metavar="NAME", help="Use this regressor; repeatable: they compete."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", metavar="LOSS", help="Minimise this loss; repeatable or a glob, for a mean."
        ),
    ] = None,
    objective: ObjectivePath = None,
    direction: Annotated[
        list[str] | None,
        typer.Option(
            "--direction",
            metavar="TARGET=higher",
            help="For this target, higher is better; repeatable.",
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            "--scale", metavar="NAME", help="none, or spread: divide each loss by its spread."
        ),
    ] = "none",
    trials: TrialsPath = None,
    key: Key = None,
    tolerance: Tolerance = 0.01,
    ignore: Ignore = None,
    drop_incomplete: DropIncomplete = False,
    unit: UnitName = None,
    pilot_mixtures: PilotMixtures = None,
    pilot_losses: PilotLosses = None,
    pilot_trials: PilotTrials = None,
    at_parameters: AtParameters = None,
    at_tokens: AtTokens = None,
    inventory: Annotated[
        Path | None, typer.Option("--inventory", help="YAML of tokens by domain, for epochs.")
    ] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Fit the regressors; choose one by cross-validation.

    Fits the trials of an experiment, or existing tables: --mixtures and --losses, or --trials. A
    few runs at the target size transfer the fit to it (--pilot-...); trials of several sizes are
    fitted together to predict at one size (--at-...).
    """
    tables = TableFiles(mixtures, losses, trials)
    pilots = TableFiles(pilot_mixtures, pilot_losses, pilot_trials)
    aim = _Aim(tuple(target or ()), objective, tuple(direction or ()), scale)
    model = _Model(tuple(regressor or ()), at_parameters, at_tokens, inventory)
    if (config is None) != tables.given:
        raise ConfigError("fit: give CONFIG or a run directory, or --mixtures, --losses and --out")
    if config is None:
        options = table_options(key, tolerance, ignore, drop_incomplete, unit)
        _fit_tables(tables, pilots, options, aim, model, out, as_json)
        return
    if aim.is_given or model.regressors or unit:
        raise ConfigError(
            "fit: --target, --objective and --regressor are for tables; CONFIG sets its own"
        )
    if pilots.given or model.is_placed:
        raise ConfigError(
            "fit: --pilot-..., --at-... and --inventory are for tables, not for CONFIG"
        )
    _fit_experiment(config_of(config), out, overrides or (), trust, as_json)


@dataclass(frozen=True)
class _Aim:
    """The objective, from options."""

    targets: tuple[str, ...]
    file: Path | None
    directions: tuple[str, ...]
    scale: str

    @property
    def is_given(self) -> bool:
        return bool(self.targets or self.file or self.directions or self.scale != "none")

    def value(self) -> ObjectiveConfig | Sequence[str] | None:
        """Return what is minimised; None for the mean of all."""
        return asked_objective(self.targets, self.file)

    def refuses_noise(self) -> bool:
        """Whether tasks that are noise are refused: where they were asked for."""
        asked = self.value()
        return asked is not None and not getattr(asked, "allow_noise", None)


@dataclass(frozen=True)
class _Model:
    """The regressors, and the size at which they predict."""

    regressors: tuple[str, ...]
    at_parameters: float | None
    at_tokens: float | None
    inventory: Path | None

    @property
    def is_placed(self) -> bool:
        return self.size is not None or self.inventory is not None

    @property
    def size(self) -> dict[str, float] | None:
        given = {"parameters": self.at_parameters, "tokens": self.at_tokens}
        return {name: value for name, value in given.items() if value is not None} or None


def _fit_experiment(
    config: Path, out: Path | None, overrides: Sequence[str], trust: bool, as_json: bool
) -> None:
    """Run the step of an experiment."""
    from mixopt import pipeline

    directory = directory_of(config, out)
    run = pipeline.fit(config, directory, overrides=overrides, trust=trust, say=say)
    print_step(run, "fit", as_json)


def _fit_tables(
    tables: TableFiles,
    pilots: TableFiles,
    options: TableOptions,
    aim: _Aim,
    model: _Model,
    out: Path | None,
    as_json: bool,
) -> None:
    """Fit existing tables, and keep the fit in a folder."""
    from mixopt.fitting import readiness
    from mixopt.pipeline import check_fit_folder, write_fit_folder

    if out is None:
        raise ConfigError("fit: tables need --out FOLDER, for the fit")
    table = tables.read("fit", options)
    check_fit_folder(out)
    fitted = table.fit(
        regressors=model.regressors,
        objective=aim.value(),
        direction=directions(aim.directions),
        scale=scale_name(aim.scale),
        unit=options.unit,
        size=model.size,
        inventory=model.inventory,
        pilots=pilots.read_pilots(options),
    )
    ready = readiness(fitted)
    if aim.refuses_noise():
        ready.refuse_noise()
    write_fit_folder(out, table, fitted)
    for note in fitted.trials.notes:
        say(f"fit: {note}")
    command = f"mixopt propose {out}{' --trust' if ':' in fitted.name else ''}"
    if as_json:
        said = {"summary": fitted.summary(), "readiness": ready.to_json(), "next": command}
        print_json({"path": str(out), "regressor": fitted.name, **said})
        return
    show(f"fit: {fitted.summary()}")
    for line in ready.lines(str(out)):
        show(f"fit: {line}")
    show(f"{COMMAND}{command}")


@app.command("evaluate")
def evaluate_command(
    directory: Directory,
    mixtures: MixturesPath = None,
    losses: LossesPath = None,
    trials: TrialsPath = None,
    affine: Annotated[
        bool,
        typer.Option("--affine", help="Rescale predictions to the runs (leave-one-out)."),
    ] = False,
    key: Key = None,
    tolerance: Tolerance = 0.01,
    ignore: Ignore = None,
    drop_incomplete: DropIncomplete = False,
    unit: UnitName = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Test a fit on runs that it has not seen."""
    from mixopt.pipeline import load_fit
    from mixopt.reporting import evaluation_text

    options = table_options(key, tolerance, ignore, drop_incomplete, unit)
    files = TableFiles(mixtures, losses, trials)
    if not files.given:
        raise ConfigError(
            "evaluate: the runs to test on are missing: give --mixtures FILE and --losses FILE,"
            " or --trials FILE"
        )
    unseen = files.read("evaluate", options)
    found = load_fit(directory, trust=trust).evaluate(unseen, affine=affine)
    print_json(found) if as_json else show(evaluation_text(found))
