"""Commands of fits and tables: fit, evaluate, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    OutPath,
    Overrides,
    PilotLosses,
    PilotMixtures,
    PilotTrials,
    Tolerance,
    TrialsPath,
    UnitName,
    app,
    directory_of,
    next_step,
    print_json,
    say,
)
from mixopt.errors import ConfigError


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
        list[str] | None, typer.Option("--target", help="Minimise this loss; the mean of several.")
    ] = None,
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
) -> None:
    """Fit the regressors; choose one by cross-validation.

    Either of an experiment's trials, or of tables that there are: --mixtures and --losses, or
    --trials. A few runs at the target size carry the fit there (--pilot-...); trials of several
    sizes are fitted together to predict at one (--at-...).
    """
    pilots = (pilot_mixtures, pilot_losses, pilot_trials)
    if (config is None) == (mixtures is None and losses is None and trials is None):
        raise ConfigError("fit: give either CONFIG, or --mixtures and --losses with --out")
    if config is not None:
        if target or regressor or direction or scale != "none" or unit:
            raise ConfigError("fit: --target and --regressor go with tables; CONFIG has its own")
        if any(one is not None for one in (*pilots, at_parameters, at_tokens, inventory)):
            raise ConfigError(
                "fit: --pilot-..., --at-... and --inventory go with tables, not CONFIG"
            )
        from mixopt.pipeline import steps

        next_step(steps.fit(config, directory_of(config, out), overrides=overrides or (), say=say))
        return
    if out is None:
        raise ConfigError("fit: --mixtures, --losses and --out go together")
    from mixopt.fitting import asked_size
    from mixopt.pipeline import fit_existing, read_inventory
    from mixopt.trials import TableOptions, directions, scale_name, unit_name

    options = TableOptions(key, tolerance, tuple(ignore or ()), drop_incomplete, unit_name(unit))
    table = options.read("fit", mixtures, losses, trials)
    sized = at_parameters is not None or at_tokens is not None
    fitted = fit_existing(
        table,
        out,
        regressors=regressor or (),
        targets=target or (),
        direction=directions(direction or ()),
        scale=scale_name(scale),
        unit=options.unit,
        size=asked_size(table.finished, at_parameters, at_tokens) if sized else None,
        inventory=None if inventory is None else read_inventory(inventory, table.domains),
        pilots=options.read_pilots(*pilots),
    )
    for note in fitted.trials.notes:
        say(f"fit: {note}")
    print(f"fit: {fitted.summary()}")
    print(f"next: mixopt propose {out}")


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
    as_json: AsJson = False,
) -> None:
    """Test a fit against runs that it has not seen: --mixtures and --losses, or --trials."""
    from mixopt.pipeline import evaluate_existing
    from mixopt.reporting import evaluation_text
    from mixopt.trials import TableOptions, unit_name

    options = TableOptions(key, tolerance, tuple(ignore or ()), drop_incomplete, unit_name(unit))
    unseen = options.read("evaluate", mixtures, losses, trials)
    found = evaluate_existing(directory, unseen, affine=affine)
    print_json(found) if as_json else print(evaluation_text(found))


@app.command("import")
def import_trials_command(
    uri: Annotated[str, typer.Option("--uri", help="MLflow's server or database, or a file.")],
    experiment: Annotated[str, typer.Option("--experiment", help="Name of the experiment.")],
    out: Annotated[Path, typer.Option("--out", help="A .parquet file, or a folder for one.")],
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
    """Read an MLflow experiment's runs back into a table of trials."""
    from mixopt.tracking import RunLayout, import_trials
    from mixopt.trials import unit_name

    layout = RunLayout(weight_prefix, loss_prefix, unit_name(unit), tolerance, by_id)
    trials, path = import_trials(uri, experiment, out, layout=layout, run=run, say=say)
    for note in trials.notes:
        say(f"import: {note}")
    finished = sum(status == "finished" for status in trials.table["status"])
    print(
        f"{path}: {len(trials)} trials ({finished} finished), {len(trials.domains)} domains,"
        f" {len(trials.targets)} evaluation domains"
    )
    print(f"next: mixopt fit --trials {path} --out {path.parent / 'fits' / path.stem}")
