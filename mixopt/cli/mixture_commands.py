"""Commands of fits and mixtures: predict, propose, fit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from typer import Argument

from mixopt.cli.options import (
    COMMAND,
    AsJson,
    Batch,
    File,
    FullLength,
    Ignore,
    LimitsPath,
    ObjectivePath,
    SizesPath,
    Targets,
    Text,
    Trusted,
    Words,
    app,
    chosen_objective,
    left_out,
    option,
    print_answer,
    print_json,
    say,
    show,
)
from mixopt.errors import ConfigError, MixtureError

if TYPE_CHECKING:
    from mixopt.mixture import Mixture
    from mixopt.objective import Direction

MAX_NAME = 120  # characters of a proposal's file name


@app.command("predict")
def predict_command(
    directory: Annotated[
        Path,
        Argument(
            metavar="RUN|FIT|SCHEDULE|MIXTURE",
            help="A run directory, a folder with a fit, or YAML of what a job draws from.",
        ),
    ],
    weights: Annotated[
        Text, option("--weights", "[default: the recommendation]", "A=.5,B=.5|FILE")
    ] = None,
    target: Targets = None,
    objective: ObjectivePath = None,
    tokens: FullLength = None,
    constraints: LimitsPath = None,
    inventory: SizesPath = None,
    batch: Batch = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Predict the losses and epochs of any mixture, and the limits that it breaks.

    With --batch, also what a job of this length draws of each domain; of a file, only that.
    """
    from mixopt.config import token_count
    from mixopt.pipeline import BATCH, draws, predict
    from mixopt.reporting import forecast_lines, schedule_text
    from mixopt.sampling import is_schedule

    options: dict[str, Any] = {"inventory": inventory, "trust": trust}
    options["tokens"] = token_count(tokens, "--tokens")
    if directory.is_file():
        if weights or target or objective or constraints:
            raise ConfigError("predict: a file has no fit; give the directory of a run or a fit")
        if is_schedule(directory) and (tokens or batch):
            raise ConfigError("predict: a schedule has its own length and batch")
        drawn = draws(directory, batch=batch or BATCH, **options)
        print_answer(as_json, drawn.to_json(), schedule_text(drawn))
        return
    mixture = read_mixture(weights)
    goal = chosen_objective(target, objective)
    prediction = predict(directory, mixture, target=goal, constraints=constraints, **options)
    content = prediction.to_json()
    text = forecast_lines(prediction)
    if batch is not None:
        drawn = draws(directory, batch=batch, mixture=mixture, **options)
        content["draws"] = drawn.to_json()
        text += f"\n\n{schedule_text(drawn)}"
    print_answer(as_json, content, text)


@app.command("propose")
def propose_command(
    directory: Annotated[
        Path, Argument(metavar="RUN|FIT", help="A run directory, or a folder with a fit.")
    ],
    out: Annotated[File, option("--out", "File to write, or folder of a front.", "FILE")] = None,
    target: Targets = None,
    objective: ObjectivePath = None,
    tokens: FullLength = None,
    constraints: LimitsPath = None,
    inventory: SizesPath = None,
    pareto: Annotated[
        Words, option("--pareto", "Trade off two or more of these.", "TARGET")
    ] = None,
    points: Annotated[int, option("--points", "Points on the Pareto front.", minimum=2)] = 9,
    free: Annotated[
        Words,
        option(
            "--free",
            "Move only these; the rest as recommended, or as in FILE.",
            "DOMAIN|BRANCH[=FILE]",
        ),
    ] = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Search a fit for the mixture with the best predicted objective."""
    from mixopt.config import token_count
    from mixopt.pipeline import propose
    from mixopt.reporting import proposal_text

    if not directory.is_dir():
        raise ConfigError(
            f"propose: {directory} is not a directory; give that of a run or of a fit (mixopt run"
            " CONFIG --until propose makes the proposal of an experiment)"
        )
    domains, reference = read_free(free or ())
    options: dict[str, Any] = {
        "tokens": token_count(tokens, "--tokens"),
        "constraints": constraints,
        "inventory": inventory,
        "free": domains,
        "reference": reference,
        "trust": trust,
    }
    if pareto:
        if target or objective:
            raise ConfigError(
                "propose: --target and --objective give one proposal, --pareto several; choose one"
            )
        _trade_off(directory, pareto, points, options, out, as_json)
        return
    proposal = propose(directory, target=chosen_objective(target, objective), **options)
    path = out or _unused(directory / "proposals" / f"{_proposal_name(target, objective)}.yaml")
    proposal.to_file(path)
    print_answer(as_json, proposal.to_json(), proposal_text(proposal))
    say(f"proposal: {path}")


def _proposal_name(targets: Sequence[str] | None, objective: Path | None) -> str:
    """Return the name of a proposal's file: its targets, or the objective's file."""
    names = [re.sub(r"[*?\[\]]+", "_", pattern) for pattern in targets or ()]
    name = "-".join(names)[:MAX_NAME]
    if name:
        return name
    return "objective" if objective is None else objective.stem


def _unused(path: Path) -> Path:
    """Return an unused path: `objective.yaml`, `objective-2.yaml`, ..."""
    number = 1
    unused = path
    while unused.exists():
        number += 1
        unused = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return unused


def _trade_off(
    directory: Path,
    targets: list[str],
    points: int,
    options: dict[str, Any],
    out: Path | None,
    as_json: bool,
) -> None:
    from mixopt.pipeline import request_from
    from mixopt.proposals import propose_front
    from mixopt.reporting import figure_svg, front_text, plot_front
    from mixopt.system import write_text

    request, _ = request_from(directory, **options)
    front = propose_front(request, targets, points=points)
    folder = out or _unused(directory / "proposals" / "-".join(["front", *targets]))
    front.to_folder(folder)
    write_text(folder / "front.svg", figure_svg(plot_front(front, request.fit.trials)))
    print_answer(as_json, front.to_json(), front_text(front))
    say(f"proposals (one per point) and front.svg: {folder}")


@app.command("fit")
def fit_command(
    sources: Annotated[
        list[Path],
        Argument(
            metavar="RUN|FIT|W.csv L.csv|TRIALS",
            help="Tables of mixtures and losses, or of trials; with --test, a fit before them.",
        ),
    ],
    out: Annotated[File, option("--out", "Folder for the fit of tables.", "DIR")] = None,
    test: Annotated[
        bool, option("--test", "Test the fit of a directory on the tables' runs.")
    ] = False,
    backtest: Annotated[
        bool, option("--backtest", "Replay the tables: what fewer runs would have picked.")
    ] = False,
    regressor: Annotated[Words, option("--regressor", "Repeatable: they compete.", "NAME")] = None,
    target: Targets = None,
    objective: ObjectivePath = None,
    direction: Annotated[
        Words, option("--direction", "Higher is better on it; repeatable or a glob.", "LOSS=higher")
    ] = None,
    at: Annotated[Text, option("--at", "Predict at this size.", "parameters=P,tokens=T")] = None,
    scale: Annotated[
        Literal["none", "spread"], option("--scale", "spread: divide each loss by its spread.")
    ] = "none",
    ignore: Ignore = None,
    trust: Trusted = False,
    as_json: AsJson = False,
) -> None:
    """Fit existing tables of runs, or test a fit on runs that it has not seen.

    mixopt fit W.csv L.csv --out DIR    fits regressors, and chooses one by cross-validation

    mixopt fit DIR --test W.csv L.csv   tests the fit of a run or of tables

    mixopt fit W.csv L.csv --backtest   replays old runs: what fewer would have picked; --out for
    its page

    The unit of losses and groups of them are fields of --objective FILE.
    """
    from mixopt.config import ObjectiveConfig
    from mixopt.pipeline import read_tables

    first = sources[0]
    if test:
        fitting = (out, regressor, target, objective, direction, scale != "none", at, backtest)
        if any(fitting):
            raise ConfigError("fit: --test takes a fit as it is; leave out the options of fitting")
        from mixopt.pipeline import load_fit
        from mixopt.reporting import evaluation_text

        fit = load_fit(first, trust=trust)
        unseen = read_tables(sources[1:], unit=fit.objective.unit, **left_out(ignore))
        evaluation = fit.evaluate(unseen)
        print_answer(as_json, evaluation, evaluation_text(evaluation))
        return
    if first.is_dir() or first.suffix in {".yaml", ".yml"}:
        raise ConfigError(
            f"fit: {first}: give tables, W.csv and L.csv; an experiment is fitted by mixopt run"
            " CONFIG --until fit, and tested with --test W.csv L.csv"
        )
    if backtest and at:
        raise ConfigError("fit: --backtest compares runs within their sizes; leave out --at")
    if out is None and not backtest:
        raise ConfigError("fit: tables need --out DIR, for the fit")
    goal = chosen_objective(target, objective)
    size = read_size(at)
    options: dict[str, Any] = {
        "regressors": regressor or (),
        "objective": goal,
        "direction": read_directions(direction or ()),
        "scale": scale,
    }
    unit = None
    if isinstance(goal, ObjectiveConfig) and "unit" in goal.model_fields_set:
        unit = goal.unit
    trials = read_tables(sources, unit=unit, **left_out(ignore))
    if backtest or out is None:
        from mixopt.reporting import backtest_text, write_backtest

        replay = trials.backtest(**options)
        print_answer(as_json, replay.to_json(), backtest_text(replay))
        if out is not None:
            write_backtest(replay, out / "backtest.html")
            say(f"page: {out / 'backtest.html'}")
        return
    from mixopt.pipeline import fit_tables

    fit, ready = fit_tables(trials, out, at=size, **options)
    for note in fit.trials.notes:
        say(f"fit: {note}")
    words = ["mixopt", "propose", str(out)]
    if ":" in fit.name:
        words.append("--trust")
    command = shlex.join(words)
    if as_json:
        content = {
            "path": str(out),
            "regressor": fit.name,
            "summary": fit.summary(),
            "readiness": ready.to_json(),
            "next": command,
        }
        print_json(content)
        return
    show(f"fit: {fit.summary()}")
    for line in ready.lines(str(out)):
        show(f"fit: {line}")
    show(f"{COMMAND}{command}")


def _pairs(option: str, text: str, expected: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        name = name.strip()
        if not name:
            raise ConfigError(f"{option} {part.strip()}: expected {expected}")
        if name in pairs:
            raise ConfigError(f"{option}: {name!r} is given twice")
        pairs[name] = value.strip()
    return pairs


def read_free(options: Sequence[str]) -> tuple[list[str], Mixture | None]:
    """Parse `web` or `web=mixture.yaml`: domains that may change, and the mixture of the rest."""
    from mixopt.mixture import Mixture

    domains = []
    files: list[str] = []
    for text in options:
        domain, sign, file = text.partition("=")
        domains.append(domain)
        if sign and file not in files:
            files.append(file)
    if len(files) > 1:
        raise ConfigError(f"--free: the rest is held at one mixture, not at {' and '.join(files)}")
    reference = Mixture.from_file(files[0]) if files else None
    return domains, reference


def read_directions(options: Sequence[str]) -> dict[str, Direction]:
    """Parse `accuracy=higher` options."""
    expected = "LOSS=higher or LOSS=lower, such as accuracy=higher"
    if not options:
        return {}
    pairs = _pairs("--direction", ",".join(options), expected)
    for name, direction in pairs.items():
        if direction not in {"lower", "higher"}:
            raise ConfigError(f"--direction {name}={direction}: expected {expected}")
    return cast("dict[str, Direction]", pairs)


def read_size(option: str | None) -> dict[str, float]:
    """Parse `parameters=1e9,tokens=25e9`."""
    from mixopt.config import token_count

    if not option:
        return {}
    expected = "parameters=P or tokens=T, such as tokens=25e9"
    size: dict[str, float] = {}
    for name, number in _pairs("--at", option, expected).items():
        if name not in ("parameters", "tokens"):
            raise ConfigError(f"--at {name}={number}: expected {expected}")
        size[name] = float(token_count(number, f"--at {name}") or 0)
    return size


def read_mixture(option: str | None) -> Mixture | None:
    """Parse `a=.5,b=.5`, or read a file with a mixture."""
    from mixopt.mixture import Mixture

    if option is None:
        return None
    if "=" not in option and (Path(option).suffix or Path(option).exists()):
        return Mixture.from_file(option)
    expected = "DOMAIN=SHARE, such as web=.5, or a file"
    weights = {}
    for name, number in _pairs("--weights", option, expected).items():
        try:
            weights[name] = float(number)
        except ValueError:
            raise ConfigError(f"--weights {name}={number}: expected {expected}") from None
    try:
        return Mixture(weights)
    except MixtureError as error:
        text = str(error).partition(", or pass")[0]  # an option has no tolerance to pass
        raise ConfigError(f"--weights: {text}") from None
