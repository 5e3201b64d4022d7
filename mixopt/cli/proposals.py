"""The command that proposes: one mixture, or a Pareto front of several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixopt.cli.options import (
    AsJson,
    Overrides,
    app,
    directory_of,
    next_step,
    print_json,
    say,
)
from mixopt.errors import ConfigError

if TYPE_CHECKING:
    from mixopt.pipeline import Asked


@app.command("propose")
def propose_command(
    source: Annotated[
        Path, typer.Argument(metavar="CONFIG|DIR", help="An experiment, or a folder with a fit.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run directory; for DIR, the file to write.")
    ] = None,
    overrides: Overrides = None,
    target: Annotated[str | None, typer.Option("--target", help="Minimise this loss.")] = None,
    tokens: Annotated[
        float | None, typer.Option("--tokens", help="Length of the full run, such as 25e9.")
    ] = None,
    constraints: Annotated[
        Path | None, typer.Option("--constraints", help="YAML of limits, as in CONFIG.")
    ] = None,
    inventory: Annotated[
        Path | None, typer.Option("--inventory", help="YAML of tokens by domain; the corpus's.")
    ] = None,
    pareto: Annotated[
        list[str] | None,
        typer.Option("--pareto", metavar="TARGET", help="Trade targets off; twice or more."),
    ] = None,
    points: Annotated[int, typer.Option("--points", min=2, help="Points of the front.")] = 9,
    risk: Annotated[
        str | None,
        typer.Option("--risk", metavar="std=K|quantile=Q", help="How being unsure counts."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search for the mixture with the best predicted objective."""
    if source.is_dir():
        if overrides:
            raise ConfigError("propose: --set goes with CONFIG, not DIR")
        from mixopt.pipeline import Asked
        from mixopt.trials import risk_of, token_count

        asked = Asked(token_count(tokens), constraints, inventory, risk_of(risk))
        if pareto:
            if target:
                raise ConfigError("propose: --target is for one proposal, --pareto for several")
            _propose_front(source, pareto, points, asked, out, as_json)
        else:
            _propose_one(source, target, asked, out, as_json)
        return
    if target or tokens or constraints or inventory or pareto or risk:
        raise ConfigError(
            "propose: --target, --tokens, --constraints, --inventory, --pareto and --risk go with"
            " DIR, not CONFIG"
        )
    from mixopt.pipeline import steps

    run = steps.propose(source, directory_of(source, out), overrides=overrides or (), say=say)
    next_step(run)


def _propose_one(
    source: Path, target: str | None, asked: Asked, out: Path | None, as_json: bool
) -> None:
    from mixopt.pipeline import propose_from
    from mixopt.reporting import proposal_text

    proposal = propose_from(source, target=target, asked=asked)
    path = out or source / "proposals" / f"{target or 'objective'}.yaml"
    proposal.to_file(path)
    print_json(proposal.to_json()) if as_json else print(proposal_text(proposal))
    say(f"proposal: {path}")


def _propose_front(
    source: Path,
    targets: list[str],
    points: int,
    asked: Asked,
    out: Path | None,
    as_json: bool,
) -> None:
    from mixopt.pipeline import load_fit, propose_front_from
    from mixopt.reporting import figure_svg, front_text, plot_front
    from mixopt.system import write_text

    front = propose_front_from(source, targets, points=points, asked=asked)
    folder = out or source / "proposals" / "-".join(["front", *targets])
    front.to_folder(folder)
    write_text(folder / "front.svg", figure_svg(plot_front(front, load_fit(source).trials)))
    print_json(front.to_json()) if as_json else print(front_text(front))
    say(f"proposals, a point each, and front.svg: {folder}")
