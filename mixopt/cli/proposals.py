"""Commands of mixtures: propose, predict."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.options import (
    AsJson,
    FullLength,
    LimitsPath,
    ObjectivePath,
    Overrides,
    SizesPath,
    Trusted,
    app,
    asked_objective,
    complete_directory,
    config_of,
    directory_of,
    print_json,
    print_step,
    risk_of,
    say,
    show,
)
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixopt.mixture import Mixture
    from mixopt.pipeline import FitQuery

MAX_NAME = 120  # characters of a proposal's file
OF_A_FIT = "--target, --objective, --tokens, --constraints, --inventory, --pareto and --risk"


@app.command("propose")
def propose_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG|RUN|FIT",
            help="The experiment's YAML file, its run directory, or a folder with a fit.",
            autocompletion=complete_directory,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run directory; from a fit, the file to write.")
    ] = None,
    overrides: Overrides = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", metavar="LOSS", help="Minimise this loss; repeatable or a glob, for a mean."
        ),
    ] = None,
    objective: ObjectivePath = None,
    tokens: FullLength = None,
    constraints: LimitsPath = None,
    inventory: SizesPath = None,
    pareto: Annotated[
        list[str] | None,
        typer.Option(
            "--pareto", metavar="TARGET", help="Trade these targets off; give two or more."
        ),
    ] = None,
    points: Annotated[int, typer.Option("--points", min=2, help="Points on the Pareto front.")] = 9,
    risk: Annotated[
        str | None,
        typer.Option(
            "--risk",
            metavar="std=K|quantile=Q",
            help="Penalise uncertainty: by standard deviations, or a quantile.",
        ),
    ] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Search for the mixture with the best predicted objective."""
    given = any((target, objective, pareto, tokens, constraints, inventory, risk))
    if not source.is_dir():
        if given:
            raise ConfigError(f"propose: {OF_A_FIT} need a run directory, not CONFIG")
        _propose_experiment(source, out, overrides or (), trust, as_json)
        return
    if overrides and given:
        raise ConfigError(
            f"propose: --set repeats the step of the run; {OF_A_FIT} ask the fit again; give only"
            " one"
        )
    if overrides or (out is None and not given and _is_waiting(source)):
        _propose_experiment(config_of(source), out, overrides or (), trust, as_json)
        return
    from mixopt.config import token_count
    from mixopt.pipeline import FitQuery

    query = FitQuery(token_count(tokens, "--tokens"), constraints, inventory, risk_of(risk))
    if not pareto:
        _propose_one(source, tuple(target or ()), objective, query, out, trust, as_json)
    elif target or objective:
        raise ConfigError(
            "propose: --target and --objective give one proposal, --pareto several; choose one"
        )
    else:
        _propose_front(source, tuple(pareto), points, query, out, trust, as_json)


def _is_waiting(directory: Path) -> bool:
    """Tell whether this is a run that has no proposal of its own yet."""
    return (directory / "steps.json").exists() and not (directory / "proposal.yaml").exists()


def _propose_experiment(
    config: Path, out: Path | None, overrides: Sequence[str], trust: bool, as_json: bool
) -> None:
    """Run the step of an experiment."""
    from mixopt import pipeline

    directory = directory_of(config, out)
    run = pipeline.propose(config, directory, overrides=overrides, trust=trust, say=say)
    print_step(run, "propose", as_json)


def _propose_one(
    source: Path,
    targets: tuple[str, ...],
    objective: Path | None,
    query: FitQuery,
    out: Path | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Propose one mixture from a folder with a fit; its file is called by what is minimised."""
    from mixopt.pipeline import propose_from
    from mixopt.reporting import proposal_text

    aim = asked_objective(targets, objective)
    proposal = propose_from(source, target=aim, query=query, trust=trust)
    name = "-".join(re.sub(r"[*?\[\]]+", "_", target) for target in targets)[:MAX_NAME]
    name = name or ("objective" if objective is None else objective.stem)
    path = out or source / "proposals" / f"{name}.yaml"
    proposal.to_file(path)
    print_json(proposal.to_json()) if as_json else show(proposal_text(proposal))
    say(f"proposal: {path}")


def _propose_front(
    source: Path,
    targets: tuple[str, ...],
    points: int,
    query: FitQuery,
    out: Path | None,
    trust: bool,
    as_json: bool,
) -> None:
    from mixopt.pipeline import load_fit, propose_front_from
    from mixopt.reporting import figure_svg, front_text, plot_front
    from mixopt.system import write_text

    fit = load_fit(source, trust=trust)
    front = propose_front_from(source, targets, points=points, query=query, trust=trust)
    folder = out or source / "proposals" / "-".join(["front", *targets])
    front.to_folder(folder)
    write_text(folder / "front.svg", figure_svg(plot_front(front, fit.trials)))
    print_json(front.to_json()) if as_json else show(front_text(front))
    say(f"proposals (one per point) and front.svg: {folder}")


Fitted = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|FIT",
        help="A run directory, or a folder with a fit.",
        autocompletion=complete_directory,
    ),
]
CLOSE = 1e-6  # how far from 1 the sum of weights may be


@app.command("predict")
def predict_command(
    directory: Fitted,
    mixture: Annotated[
        Path | None, typer.Option("--mixture", metavar="FILE", help="YAML of weights by domain.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="A=.5,B=.5", help="Weights by domain.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", metavar="LOSS", help="Predict this loss; repeatable or a glob, for a mean."
        ),
    ] = None,
    objective: ObjectivePath = None,
    tokens: FullLength = None,
    constraints: LimitsPath = None,
    inventory: SizesPath = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Predict the losses and epochs of any mixture."""
    from mixopt.config import token_count
    from mixopt.pipeline import FitQuery, predict_from
    from mixopt.reporting import forecast_lines

    given = _mixture(mixture, weights)
    query = FitQuery(token_count(tokens, "--tokens"), constraints, inventory)
    aim = asked_objective(tuple(target or ()), objective)
    found = predict_from(directory, given, target=aim, query=query, trust=trust)
    print_json(found.to_json()) if as_json else show(forecast_lines(found))


@app.command("readiness")
def readiness_command(directory: Fitted, trust: Trusted = False, as_json: AsJson = False) -> None:
    """Show how well trials tell mixtures apart, loss by loss."""
    from mixopt.fitting import readiness
    from mixopt.pipeline import load_fit
    from mixopt.reporting import readiness_text

    found = readiness(load_fit(directory, trust=trust))
    print_json(found.to_json()) if as_json else show(readiness_text(found))


MAX_SHARE = 1e15  # sums of larger ones may overflow


def _mixture(file: Path | None, weights: str | None) -> Mixture:
    """Return the mixture that is asked about."""
    from mixopt.mixture import Mixture

    if (file is None) == (weights is None):
        raise ConfigError("predict: give either --mixture FILE or --weights A=.5,B=.5")
    return Mixture.from_file(file) if file is not None else Mixture(_weights(weights or ""))


def _weights(text: str) -> dict[str, float]:
    """Read `a=.5,b=.5`."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not name.strip() or not 0 <= share < MAX_SHARE:
            raise ConfigError(f"--weights {part.strip()}: expected DOMAIN=SHARE, such as web=.5")
        if name.strip() in found:
            raise ConfigError(f"--weights: domain {name.strip()!r} is given twice")
        found[name.strip()] = share
    total = math.fsum(found.values())
    if abs(total - 1.0) > CLOSE:
        fix = f"; divide each by {total:.6g}" if total > 0 else ""
        raise ConfigError(f"--weights: the sum is {total:.6g}, not 1{fix}")
    return found
