"""A finished run in one screen: the proposal, and what validation says of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mixopt.proposal_file import Proposal
from mixopt.run_directory import Run
from mixopt.validation import Validation, validation_table

if TYPE_CHECKING:
    from rich.table import Table

UNITS = {"bits_per_byte": "bits per byte", "nats_per_token": "nats per token"}


def run_summary(run: Run) -> dict[str, Any]:
    """Return the answer of a run as plain values."""
    proposal = run.proposal
    return {
        "path": str(run.path),
        "proposal": str(run.path / "proposal.yaml"),
        "report": str(run.path / "report.html"),
        "weights": dict(proposal.mixture),
        "natural": dict(proposal.natural),
        "objective": run.objective.describe(),
        "predicted": proposal.predicted_objective.to_json(),
        "validation": run.validation.to_json(),
    }


def summary_text(run: Run) -> str:
    """Return the tables of the proposal and of its validation, and where the files are."""
    lines = [
        proposal_text(run.proposal),
        _text_of(_validation_table(run.validation)),
        run.validation.verdict,
        "",
        f"proposal: {run.path / 'proposal.yaml'}",
        f"report:   {run.path / 'report.html'}",
    ]
    return "\n".join(lines)


def proposal_text(proposal: Proposal) -> str:
    """Return the table of a proposal, its prediction and its warnings."""
    predicted = proposal.predicted_objective
    interval = f"{predicted.low:.4f} to {predicted.high:.4f}"
    lines = [
        _text_of(_proposal_table(proposal)),
        f"predicted: {predicted.value:.4f} {UNITS[proposal.unit]}, 90% interval {interval}",
        *(f"warning: {warning}" for warning in proposal.warnings),
    ]
    return "\n".join(lines) + "\n"


def evaluation_text(found: Mapping[str, Any]) -> str:
    """Return the table of `mixopt.tables.evaluate_fit`."""
    columns = ("spearman", "rmse", "coverage90", "rank", "regret")
    title = f"{found['regressor']} on {found['runs']} runs that it has not seen"
    table = _table(title, "target", *columns)
    for name, row in {**found["targets"], "(mean)": found["mean"]}.items():
        cells = ["" if row[column] is None else f"{row[column]:.4g}" for column in columns]
        table.add_row(name, *cells)
    mean = found["mean_spearman"]
    said = "none: every target is constant" if mean is None else f"{mean:.4f}"
    return f"{_text_of(table)}\nmean Spearman over targets: {said}"


def _proposal_table(proposal: Proposal) -> Table:
    columns = ("natural", "proposed", *(("epochs",) if proposal.epochs is not None else ()))
    table = _table(f"Proposal for {proposal.objective}", "domain", *columns)
    for domain, weight in sorted(proposal.mixture.items(), key=lambda item: -item[1]):
        row = [domain, f"{100 * proposal.natural[domain]:.1f}%", f"{100 * weight:.1f}%"]
        if proposal.epochs is not None:
            row.append(f"{proposal.epochs[domain]:.2f}")
        table.add_row(*row)
    return table


def _validation_table(validation: Validation) -> Table:
    unit = UNITS[validation.objective.unit]
    title = f"Validation: {validation.objective.describe()}, {unit}, lower is better"
    table = _table(title, "mixture", "mean", "sd", "proposal less it", "95% interval", "proposal")
    for row in validation_table(validation).iter_rows(named=True):
        cells = [row["mixture"], f"{row['objective']:.4f}", f"{row['sd']:.4f}"]
        if row["verdict"] is not None:
            interval = f"{row['low']:+.4f} to {row['high']:+.4f}"
            cells += [f"{row['difference']:+.4f}", interval, row["verdict"]]
        table.add_row(*cells)
    return table


def _text_of(table: Table) -> str:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=100, highlight=False, color_system=None, markup=False)
    # A title of its own is wrapped to the width of the table.
    title, table.title = table.title, None
    console.print(title, soft_wrap=True)
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines()) + "\n"


def _table(title: str, first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
