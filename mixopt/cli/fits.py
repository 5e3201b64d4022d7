"""Commands of fits and tables: fit, evaluate, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

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
    Targets,
    Tolerance,
    TrialsPath,
    Trusted,
    UnitName,
    app,
    asked_objective,
    complete_directory,
    directions,
    print_json,
    run_step,
    say,
    scale_name,
    show,
    unit_name,
)
from mixopt.errors import ConfigError


@app.command("fit")
def fit_command(
    config: Annotated[
        Path | None,
        Argument(
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
        Option("--regressor", metavar="NAME", help="Use this regressor; repeatable: they compete."),
    ] = None,
    target: Targets = None,
    objective: ObjectivePath = None,
    direction: Annotated[
        list[str] | None,
        Option(
            "--direction",
            metavar="TARGET=higher",
            help="For this target, higher is better; repeatable.",
        ),
    ] = None,
    scale: Annotated[
        str,
        Option("--scale", metavar="NAME", help="none, or spread: divide each loss by its spread."),
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
        Path | None, Option("--inventory", help="YAML of tokens by domain, for epochs.")
    ] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Fit the regressors; choose one by cross-validation.

    Fits the trials of an experiment, or existing tables: --mixtures and --losses, or --trials. A
    few runs at the target size transfer the fit to it (--pilot-...); trials of several sizes are
    fitted together to predict at one size (--at-...).
    """
    tables, pilots = (mixtures, losses, trials), (pilot_mixtures, pilot_losses, pilot_trials)
    given = {"parameters": at_parameters, "tokens": at_tokens}
    size = {name: value for name, value in given.items() if value is not None}
    if (config is None) != any(tables):
        raise ConfigError("fit: give CONFIG or a run directory, or --mixtures, --losses and --out")
    if config is not None:
        if target or objective or direction or scale != "none" or regressor or unit:
            raise ConfigError(
                "fit: --target, --objective and --regressor are for tables; CONFIG sets its own"
            )
        if any(pilots) or size or inventory:
            raise ConfigError(
                "fit: --pilot-..., --at-... and --inventory are for tables, not for CONFIG"
            )
        run_step("fit", config, out, overrides, trust, as_json)
        return
    from mixopt.fitting import readiness
    from mixopt.pipeline import TableOptions, check_fit_folder, write_fit_folder

    if out is None:
        raise ConfigError("fit: tables need --out FOLDER, for the fit")
    options = TableOptions(key, tolerance, tuple(ignore or ()), drop_incomplete, unit_name(unit))
    table = options.read("fit", *tables)
    check_fit_folder(out)
    aim = asked_objective(target or (), objective)
    fitted = table.fit(
        regressors=tuple(regressor or ()),
        objective=aim,
        direction=directions(direction or ()),
        scale=scale_name(scale),
        unit=options.unit,
        size=size or None,
        inventory=inventory,
        pilots=options.read_pilots(*pilots),
    )
    ready = readiness(fitted)
    if aim is not None and not getattr(aim, "allow_noise", None):
        ready.refuse_noise()
    write_fit_folder(out, table, fitted)
    for note in fitted.trials.notes:
        say(f"fit: {note}")
    command = f"mixopt propose {out}{' --trust' if ':' in fitted.name else ''}"
    if as_json:
        answer = {"summary": fitted.summary(), "readiness": ready.to_json(), "next": command}
        print_json({"path": str(out), "regressor": fitted.name, **answer})
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
        bool, Option("--affine", help="Rescale predictions to the runs (leave-one-out).")
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
    from mixopt.pipeline import TableOptions, load_fit
    from mixopt.reporting import evaluation_text

    tables = (mixtures, losses, trials)
    if not any(tables):
        raise ConfigError(
            "evaluate: the runs to test on are missing: give --mixtures FILE and --losses FILE,"
            " or --trials FILE"
        )
    options = TableOptions(key, tolerance, tuple(ignore or ()), drop_incomplete, unit_name(unit))
    unseen = options.read("evaluate", *tables)
    found = load_fit(directory, trust=trust).evaluate(unseen, affine=affine)
    print_json(found) if as_json else show(evaluation_text(found))
