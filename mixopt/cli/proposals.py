"""Commands of mixtures: propose, predict."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from mixopt.cli.options import (
    AsJson,
    Fitted,
    FullLength,
    LimitsPath,
    ObjectivePath,
    Overrides,
    SizesPath,
    Targets,
    Trusted,
    app,
    asked_objective,
    complete_directory,
    print_json,
    risk_of,
    run_step,
    say,
    show,
)
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixopt.mixture import Mixture
    from mixopt.pipeline import FitQuery

MAX_NAME = 120  # characters of a proposal's file name


@app.command("propose")
def propose_command(
    source: Annotated[
        Path,
        Argument(
            metavar="CONFIG|RUN|FIT",
            help="The experiment's YAML file, its run directory, or a folder with a fit.",
            autocompletion=complete_directory,
        ),
    ],
    out: Annotated[
        Path | None, Option("--out", help="The run directory; from a fit, the file to write.")
    ] = None,
    overrides: Overrides = None,
    target: Targets = None,
    objective: ObjectivePath = None,
    tokens: FullLength = None,
    constraints: LimitsPath = None,
    inventory: SizesPath = None,
    pareto: Annotated[
        list[str] | None,
        Option("--pareto", metavar="TARGET", help="Trade these targets off; give two or more."),
    ] = None,
    points: Annotated[int, Option("--points", min=2, help="Points on the Pareto front.")] = 9,
    risk: Annotated[
        str | None,
        Option(
            "--risk",
            metavar="std=K|quantile=Q",
            help="Penalise uncertainty: by standard deviations, or a quantile.",
        ),
    ] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Search for the mixture with the best predicted objective."""
    given = any((target, objective, tokens, constraints, inventory, pareto, risk))
    if given and (overrides or not source.is_dir()):
        raise ConfigError(
            "propose: --target, --objective, --tokens, --constraints, --inventory, --pareto and"
            " --risk ask a new question of a run directory, without CONFIG and without --set"
        )
    is_waiting = (source / "steps.json").exists() and not (source / "proposal.yaml").exists()
    if not source.is_dir() or overrides or (out is None and not given and is_waiting):
        run_step("propose", source, out, overrides, trust, as_json)
        return
    from mixopt.config import token_count
    from mixopt.pipeline import FitQuery

    query = FitQuery(token_count(tokens, "--tokens"), constraints, inventory, risk_of(risk))
    if pareto and (target or objective):
        raise ConfigError(
            "propose: --target and --objective give one proposal, --pareto several; choose one"
        )
    if pareto:
        _propose_front(source, pareto, points, query, out, trust, as_json)
        return
    from mixopt.pipeline import propose_from
    from mixopt.reporting import proposal_text

    aim = asked_objective(target or (), objective)
    proposal = propose_from(source, target=aim, query=query, trust=trust)
    name = "-".join(re.sub(r"[*?\[\]]+", "_", one) for one in target or ())[:MAX_NAME]
    name = name or ("objective" if objective is None else objective.stem)
    path = out or source / "proposals" / f"{name}.yaml"
    proposal.to_file(path)
    print_json(proposal.to_json()) if as_json else show(proposal_text(proposal))
    say(f"proposal: {path}")


def _propose_front(
    source: Path,
    targets: Sequence[str],
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


CLOSE = 1e-6  # how far from 1 the sum of weights may be
MAX_SHARE = 1e15  # sums of larger ones may overflow


@app.command("predict")
def predict_command(
    directory: Fitted,
    mixture: Annotated[
        Path | None, Option("--mixture", metavar="FILE", help="YAML of weights by domain.")
    ] = None,
    weights: Annotated[
        str | None, Option("--weights", metavar="A=.5,B=.5", help="Weights by domain.")
    ] = None,
    target: Targets = None,
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
