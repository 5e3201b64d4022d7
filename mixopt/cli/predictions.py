"""Commands on a fit: predictions for any mixture, and how well trials tell mixtures apart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.completion import complete_directory
from mixopt.cli.options import (
    AsJson,
    FullLength,
    LimitsPath,
    ObjectivePath,
    SizesPath,
    Trusted,
    app,
    asked_objective,
    print_json,
    show,
)
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from mixopt.mixture import Mixture

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
    from mixopt.pipeline import Asked, predict_from
    from mixopt.reporting import forecast_lines

    given = _mixture(mixture, weights)
    asked = Asked(token_count(tokens, "--tokens"), constraints, inventory)
    aim = asked_objective(tuple(target or ()), objective)
    found = predict_from(directory, given, target=aim, asked=asked, trust=trust)
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
    """Return the mixture that is asked about.

    Raises:
        ConfigError: Neither or both are given, or weights that cannot be read.
        MixtureError: Weights that are not a mixture.
    """
    from mixopt.mixture import Mixture

    if (file is None) == (weights is None):
        raise ConfigError("predict: give either --mixture FILE or --weights A=.5,B=.5")
    return Mixture.from_file(file) if file is not None else Mixture(_weights(weights or ""))


def _weights(text: str) -> dict[str, float]:
    """Read `a=.5,b=.5`.

    Raises:
        ConfigError: It is of another form, or does not add up to 1.
    """
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
