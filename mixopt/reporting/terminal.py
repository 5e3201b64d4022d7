"""A finished run in one screen: what to train on, why, and what it costs."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixopt.objective import UNITS
from mixopt.proposals import Proposal, Recommendation, Validation, named
from mixopt.run_directory import RECOMMENDATION, CheckedPart, Run
from mixopt.system import bytes_text, short_count

if TYPE_CHECKING:
    from rich.table import Table

    from mixopt.objective import UNITS
from mixopt.proposals import Front

SHOWN = 4  # domains of a point of a front
COSTS = 5  # losses beside the objective that the first screen names
WIDTH = 80


def run_summary(run: Run) -> dict[str, Any]:
    """Return the answer of a run as plain values."""
    proposal, recommendation = run.proposal, run.recommendation
    return {
        "path": str(run.path),
        "recommendation": recommendation.to_json(),
        "proposal": str(run.path / "proposal.yaml"),
        "report": str(run.path / "report.html"),
        "weights": dict(recommendation.mixture),
        "natural": dict(recommendation.natural),
        "objective": run.objective.describe(),
        "predicted": proposal.predicted_objective.to_json(),
        "validation": run.validation.to_json(),
    }


def summary_text(run: Run) -> str:
    """Return what a run recommends and why, in a screen, and where the files are."""
    lines = [
        recommendation_text(run.recommendation, run.validation),
        f"recommendation: {run.path / RECOMMENDATION}",
        f"report:         {run.path / 'report.html'}",
    ]
    return "\n".join(lines)


def recommendation_text(found: Recommendation, validation: Validation) -> str:
    """Return the answer in one line, the mixture, its gains, and what else it changes."""
    lines = [
        wrapped(found.headline),
        "",
        _text_of(_mixture_table(found)),
        _text_of(_gains_table(found, validation)),
        *_costs(found),
        *(wrapped(f"warning: {warning}") for warning in found.warnings),
    ]
    return "\n".join(lines) + "\n"


def proposal_text(proposal: Proposal) -> str:
    """Return the table of a proposal, its prediction and its warnings."""
    predicted = proposal.predicted_objective
    interval = f"{predicted.low:.4f} to {predicted.high:.4f}"
    lines = [
        _text_of(_proposal_table(proposal)),
        f"predicted: {predicted.value:.4f} {UNITS[proposal.unit]}, 90% interval {interval}",
        wrapped(f"effective domains: {proposal.effective_domains:.1f}; {_sureness(proposal)}"),
        *(wrapped(f"active constraint: {limit}") for limit in proposal.binding),
        *(wrapped(f"warning: {warning}") for warning in proposal.warnings),
    ]
    return "\n".join(lines) + "\n"


def front_text(front: Front) -> str:
    """Return a table of a front: each point's predicted losses, and its largest weights."""
    table = _table(
        f"Pareto front of {' and '.join(front.targets)}, {UNITS[front.unit]}",
        "point",
        *front.targets,
        "mixture",
    )
    for number, point in enumerate(front.points, start=1):
        losses = [f"{point.losses[name].value:.4f}" for name in front.targets]
        weights = sorted(point.proposal.mixture.items(), key=lambda item: -item[1])[:SHOWN]
        table.add_row(
            str(number), *losses, ", ".join(f"{n} {100 * w:.0f}%" for n, w in weights if w >= 0.005)
        )
    return _text_of(table, width=120)


def verification_text(parts: Sequence[CheckedPart]) -> str:
    """Return the table of a verified directory, what is wrong, and what makes it again."""
    table = _table("Files against their hashes", "part", "state", "files", "size")
    for part in parts:
        counts = (str(part.files), bytes_text(part.bytes)) if part.files else ("", "")
        table.add_row(part.name, part.state, *counts)
    lines = [_text_of(table)]
    for part in parts:
        lines += [f"{part.name}: {name}: {what}" for name, what in part.faults.items()]
        lines += [f"{part.name}: make it again: {part.mend}"] if part.mend else []
    return "\n".join(lines)


def _sureness(proposal: Proposal) -> str:
    if proposal.is_own or proposal.optimism.estimate is None:
        return "nobody searched for it"
    held_out = f"predicted best while held out, trials came out {proposal.optimism.estimate:+.4f}"
    moved = proposal.stability
    if moved is None:
        return held_out
    return f"{100 * moved.mean:.0f}% of the mixture moves when trials are resampled; {held_out}"


def evaluation_text(found: Mapping[str, Any]) -> str:
    """Return the table of `mixopt.fitting.evaluation.evaluate`."""
    columns = {
        "spearman": "spearman",
        "own_share": "own share",
        "from_uniform": "from uniform",
        "ceiling": "ceiling",
        "rmse": "rmse",
        "coverage90": "coverage",
        "rank": "rank",
        "regret": "regret",
    }
    title = f"{found['regressor']} on {found['runs']} runs that it has not seen"
    rows = {**found["targets"], "(mean)": found["mean"], "(mean, scaled)": found["mean_scaled"]}
    shown = [c for c in columns if any(row and row.get(c) is not None for row in rows.values())]
    table = _table(title, "target", *(columns[column] for column in shown))
    for name, row in rows.items():
        if row is not None:
            cells = [row.get(column) for column in shown]
            table.add_row(name, *("" if cell is None else f"{cell:.4g}" for cell in cells))
    notes = "".join(f"{note}\n" for note in found["notes"])
    return f"{_text_of(table, width=120)}\n{notes}{_mean_ranks(found)}"


def _mean_ranks(found: Mapping[str, Any]) -> str:
    mean, controls = found["mean_spearman"], found["mean_controls"]
    if mean is None:
        return "mean Spearman over targets: none, every target is constant"
    others = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in controls.items()
        if value is not None
    ]
    return f"mean Spearman over targets: {mean:.4f} ({', '.join(others)})"


def _proposal_table(proposal: Proposal) -> Table:
    columns = ("natural", "proposed", *(("epochs",) if proposal.epochs is not None else ()))
    whose = "A mixture of your own" if proposal.is_own else "Proposal"
    table = _table(f"{whose} for {proposal.objective}", "domain", *columns)
    for domain, weight in sorted(proposal.mixture.items(), key=lambda item: -item[1]):
        row = [domain, f"{100 * proposal.natural[domain]:.1f}%", f"{100 * weight:.1f}%"]
        if proposal.epochs is not None:
            row.append(f"{proposal.epochs[domain]:.2f}")
        table.add_row(*row)
    return table


def _mixture_table(found: Recommendation) -> Table:
    columns = ("natural", "recommended", *(("epochs",) if found.epochs is not None else ()))
    table = _table(f"Shares of the training tokens, for {found.objective}", "domain", *columns)
    for domain, weight in sorted(found.mixture.items(), key=lambda item: -item[1]):
        row = [domain, f"{100 * found.natural[domain]:.1f}%", f"{100 * weight:.1f}%"]
        if found.epochs is not None:
            row.append(f"{found.epochs[domain]:.2f}")
        table.add_row(*row)
    return table


def _gains_table(found: Recommendation, validation: Validation) -> Table:
    """Show predicted gains beside validated ones; levels are those of validation alone."""
    title = f"Gain of {named(found.chosen)} over others, {UNITS[found.unit]}, above 0 is better"
    level = f"loss at {short_count(found.tokens)}"
    table = _table(title, "over", level, "gain", "95% interval", "predicted", "verdict")
    table.add_row(named(found.chosen), f"{validation.mean(found.chosen):.4f}")
    for name, gain in found.gains.items():
        one = gain.validated
        predicted = "" if gain.predicted is None else f"{gain.predicted.value:+.4f}"
        interval = f"{one.low:+.4f} to {one.high:+.4f}"
        cells = [named(name), f"{validation.mean(name):.4f}", f"{one.value:+.4f}", interval]
        table.add_row(*cells, predicted, gain.verdict)
    return table


def _costs(found: Recommendation) -> list[str]:
    """Say what changes in the losses that the objective does not measure, the worst first."""
    if not found.costs:
        return []
    shown = [
        f"{name} {cost.value:+.4f} ({cost.low:+.4f} to {cost.high:+.4f})"
        for name, cost in list(found.costs.items())[:COSTS]
    ]
    more = len(found.costs) - len(shown)
    ending = f"; and {more} more in the report" if more else ""
    said = "not part of the objective, against natural (above 0 is worse)"
    return [wrapped(f"{said}: {'; '.join(shown)}{ending}"), ""]


def _text_of(table: Table, width: int = 100) -> str:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, color_system=None, markup=False)
    # A title of its own is wrapped to the width of the table.
    title, table.title = table.title, None
    console.print(title, soft_wrap=True)
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines()) + "\n"


def wrapped(line: str) -> str:
    """Return a sentence in lines of a terminal's width."""
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _table(title: str, first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
