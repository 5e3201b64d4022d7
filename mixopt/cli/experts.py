"""The command on the experts of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from mixopt.cli.options import AsJson, Directory, Trusted, app, print_json, say, show

ThresholdValues = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold", metavar="NAME=VALUE", help="Set a threshold of the diagnoses; repeatable."
    ),
]
RankCount = Annotated[
    int | None,
    typer.Option("--ranks", help="Ranks of expert parallelism [default: up to 8 that fit]."),
]
StepRange = Annotated[
    str | None,
    typer.Option("--steps", metavar="A:B", help="Range of steps [default: the second half]."),
]
ChangeStep = Annotated[
    int | None,
    typer.Option(
        "--change",
        metavar="STEP",
        help="Compare before and after this step [default: largest change].",
    ),
]


@app.command("experts")
def experts_command(
    directory: Directory,
    threshold: ThresholdValues = None,
    ranks: RankCount = None,
    steps: StepRange = None,
    change: ChangeStep = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Show which experts serve which domain; draw the figures."""
    from mixopt.reporting import ExpertOptions, draw_experts, experts

    options = ExpertOptions.parsed(threshold or (), ranks, steps, change)
    found = experts(directory, options, trust=trust)
    files = draw_experts(found)
    if as_json:
        print_json({**found.as_dict(), "figures": [str(file) for file in files]})
        return
    show(found)
    say(f"figures: {', '.join(str(file) for file in files)}")
