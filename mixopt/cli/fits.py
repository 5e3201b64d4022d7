"""Commands of fits and tables: fit, evaluate, import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.options import (
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
    config_of,
    directions,
    directory_of,
    next_step,
    print_json,
    say,
    scale_name,
    show,
    table_options,
    unit_name,
)
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixopt.config import ObjectiveConfig
    from mixopt.trials import TableOptions, Trials


@app.command("fit")
def fit_command(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="An experiment.")
    ] = None,
    out: OutPath = None,
    overrides: Overrides = None,
    mixtures: MixturesPath = None,
    losses: LossesPath = None,
    regressor: Annotated[
        list[str] | None, typer.Option("--regressor", help="Let this one compete; repeatable.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="Minimise this loss; the mean of several, or of a glob's."),
    ] = None,
    objective: ObjectivePath = None,
    direction: Annotated[
        list[str] | None,
        typer.Option("--direction", metavar="TARGET=higher", help="Higher is better; repeatable."),
    ] = None,
    scale: Annotated[
        str, typer.Option("--scale", help="none, or spread: divide losses by their spread.")
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
) -> None:
    """Fit the regressors; choose one by cross-validation.

    Either of an experiment's trials, or of tables that there are: --mixtures and --losses, or
    --trials. A few runs at the target size carry the fit there (--pilot-...); trials of several
    sizes are fitted together to predict at one (--at-...).
    """
    tables = TableFiles(mixtures, losses, trials)
    pilots = TableFiles(pilot_mixtures, pilot_losses, pilot_trials)
    aim = _Aim(tuple(target or ()), objective, tuple(direction or ()), scale)
    model = _Model(tuple(regressor or ()), at_parameters, at_tokens, inventory)
    if (config is None) != tables.given:
        raise ConfigError("fit: give either CONFIG, or --mixtures and --losses with --out")
    if config is None:
        options = table_options(key, tolerance, ignore, drop_incomplete, unit)
        _fit_tables(tables, pilots, options, aim, model, out)
        return
    if aim.is_given or model.regressors or unit:
        raise ConfigError(
            "fit: --target, --objective and --regressor go with tables; CONFIG has its own"
        )
    if pilots.given or model.is_placed:
        raise ConfigError("fit: --pilot-..., --at-... and --inventory go with tables, not CONFIG")
    _fit_experiment(config_of(config), out, overrides or (), trust)


@dataclass(frozen=True)
class _Aim:
    """What is minimised, as options say it."""

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
    """What competes, and where it is to predict."""

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


def _fit_experiment(config: Path, out: Path | None, overrides: Sequence[str], trust: bool) -> None:
    """Do the step of an experiment."""
    from mixopt import pipeline

    directory = directory_of(config, out)
    next_step(pipeline.fit(config, directory, overrides=overrides, trust=trust, say=say))


def _fit_tables(
    tables: TableFiles,
    pilots: TableFiles,
    options: TableOptions,
    aim: _Aim,
    model: _Model,
    out: Path | None,
) -> None:
    """Fit existing tables, and keep the fit in a folder."""
    from mixopt.fitting import readiness
    from mixopt.pipeline import check_fit_folder, write_fit_folder

    if out is None:
        raise ConfigError("fit: --mixtures, --losses and --out go together")
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
    show(f"fit: {fitted.summary()}")
    for line in ready.lines(str(out)):
        show(f"fit: {line}")
    show(f"next: mixopt propose {out}{' --trust' if ':' in fitted.name else ''}")


@app.command("evaluate")
def evaluate_command(
    directory: Directory,
    mixtures: MixturesPath = None,
    losses: LossesPath = None,
    trials: TrialsPath = None,
    affine: Annotated[
        bool,
        typer.Option("--affine", help="Map predictions to the runs' scale, each by the others."),
    ] = False,
    key: Key = None,
    tolerance: Tolerance = 0.01,
    ignore: Ignore = None,
    drop_incomplete: DropIncomplete = False,
    unit: UnitName = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Test a fit against runs that it has not seen: --mixtures and --losses, or --trials."""
    from mixopt.pipeline import load_fit
    from mixopt.reporting import evaluation_text

    options = table_options(key, tolerance, ignore, drop_incomplete, unit)
    unseen = TableFiles(mixtures, losses, trials).read("evaluate", options)
    found = load_fit(directory, trust=trust).evaluate(unseen, affine=affine)
    print_json(found) if as_json else show(evaluation_text(found))


@app.command("import")
def import_trials_command(
    out: Annotated[Path, typer.Option("--out", help="A .parquet file, or a folder for one.")],
    uri: Annotated[
        str | None, typer.Option("--uri", help="MLflow's server or database, or a file.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Name of MLflow's experiment.")
    ] = None,
    lm_eval: Annotated[
        str | None,
        typer.Option("--lm-eval", metavar="GLOB", help="lm-eval's results, runs/*/*/results*.json"),
    ] = None,
    olmes: Annotated[
        str | None, typer.Option("--olmes", metavar="GLOB", help="OLMES's runs/*/metrics.json")
    ] = None,
    mixtures: MixturesPath = None,
    key: Key = None,
    ignore: Ignore = None,
    drop_incomplete: DropIncomplete = False,
    run: Annotated[
        str | None, typer.Option("--run", help="Name or id of the parent run, of several.")
    ] = None,
    weight_prefix: Annotated[
        str, typer.Option("--weight-prefix", help="Of parameters or metrics that are weights.")
    ] = "weight/",
    loss_prefix: Annotated[
        str, typer.Option("--loss-prefix", help="Of metrics that are losses, in --unit.")
    ] = "loss/",
    unit: UnitName = None,
    tolerance: Tolerance = 0.01,
    by_id: Annotated[
        bool, typer.Option("--by-id", help="Call trials by MLflow's ids, not by their names.")
    ] = False,
) -> None:
    """Read an MLflow experiment's runs, or an evaluation harness's files, into a table of trials.

    Of a harness's files the first wildcard is the trial, whose weights --mixtures has. With
    lm-eval's samples a task is measured in bits per byte of its gold answers.
    """
    given = [one for one in (lm_eval, olmes, uri) if one is not None]
    if len(given) != 1 or (uri is None) != (experiment is None):
        raise ConfigError(
            "import: give --uri and --experiment, or --lm-eval or --olmes with --mixtures"
        )
    if uri is None:
        options = table_options(key, tolerance, ignore, drop_incomplete, None)
        _import_evaluations(lm_eval, olmes, mixtures, options, out)
        return
    from mixopt.tracking import RunLayout, import_trials

    layout = RunLayout(weight_prefix, loss_prefix, unit_name(unit), tolerance, by_id)
    trials, path = import_trials(uri, str(experiment), out, layout=layout, run=run, say=say)
    _show_imported(trials, path, ())


def _import_evaluations(
    lm_eval: str | None,
    olmes: str | None,
    mixtures: Path | None,
    options: TableOptions,
    out: Path,
) -> None:
    """Read the files of a harness, and join them with mixtures."""
    from mixopt.trials import Trials, read_evaluations

    if mixtures is None:
        raise ConfigError("import: --mixtures FILE: the weights of each trial, by its name")
    pattern = lm_eval or olmes or ""
    found = read_evaluations(pattern, "olmes" if lm_eval is None else "lm-eval")
    trials = Trials.from_evaluations(
        mixtures,
        found,
        tolerance=options.tolerance,
        key=options.key,
        ignore=options.ignore,
        drop_incomplete=options.drop_incomplete,
    )
    path = out if out.suffix == ".parquet" else out / "trials.parquet"
    trials.write(path)
    _show_imported(trials, path, found.higher)


def _show_imported(trials: Trials, path: Path, higher: Sequence[str]) -> None:
    for note in trials.notes:
        say(f"import: {note}")
    finished = sum(status == "finished" for status in trials.table["status"])
    show(
        f"{path}: {len(trials)} trials ({finished} finished), {len(trials.domains)} domains,"
        f" {len(trials.targets)} evaluation domains"
    )
    better = "".join(f" --direction {name}=higher" for name in higher if name in trials.targets)
    show(f"next: mixopt fit --trials {path} --out {path.parent / 'fits' / path.stem}{better}")
