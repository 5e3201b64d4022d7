"""A finished run in one screen: what to train on, why, and how other losses change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixopt.objective import UNITS
from mixopt.proposals import Front, Proposal, Recommendation, Validation, named
from mixopt.reporting.forgetting import forgetting_text
from mixopt.reporting.text_table import table_text
from mixopt.run_directory import RECOMMENDATION, CheckedPart, Run
from mixopt.system import bytes_text, short_count, wrapped

SHOWN = 4  # domains of a point of a front
COSTS = 5  # losses beside the objective that the first screen names


def run_summary(run: Run) -> dict[str, Any]:
    """Return the result of a run as plain values."""
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
        *_forgetting(run),
        f"recommendation: {run.path / RECOMMENDATION}",
        f"report:         {run.path / 'report.html'}",
    ]
    return "\n".join(lines)


def _forgetting(run: Run) -> list[str]:
    text = forgetting_text(run)
    return [f"{text}\n"] if text else []


def recommendation_text(found: Recommendation, validation: Validation) -> str:
    """Return the answer in one line, the mixture, its gains, and the other losses."""
    lines = [
        wrapped(found.headline),
        "",
        _mixture_table(found),
        _gains_table(found, validation),
        *([wrapped(validation.means_note), ""] if validation.means_note else []),
        *_costs(found),
        *(wrapped(f"warning: {warning}") for warning in found.warnings),
    ]
    return "\n".join(lines) + "\n"


def proposal_text(proposal: Proposal) -> str:
    """Return the table of a proposal, its prediction and its warnings."""
    predicted = proposal.predicted_objective
    interval = f"{predicted.low:.4f} to {predicted.high:.4f}"
    lines = [
        _proposal_table(proposal),
        f"predicted: {predicted.value:.4f} {UNITS[proposal.unit]}, 90% interval {interval}",
        wrapped(f"effective domains: {proposal.effective_domains:.1f}; {_sureness(proposal)}"),
        *(wrapped(f"active constraint: {limit}") for limit in proposal.binding),
        *(wrapped(f"warning: {warning}") for warning in proposal.warnings),
    ]
    return "\n".join(lines) + "\n"


def front_text(front: Front) -> str:
    """Return a table of a front: each point's predicted losses, and its largest weights."""
    rows = []
    for number, point in enumerate(front.points, start=1):
        losses = [f"{point.losses[name].value:.4f}" for name in front.targets]
        weights = sorted(point.proposal.mixture.items(), key=lambda item: -item[1])[:SHOWN]
        largest = ", ".join(f"{name} {100 * w:.0f}%" for name, w in weights if w >= 0.005)
        rows.append((str(number), *losses, largest))
    title = f"Pareto front of {' and '.join(front.targets)}, {UNITS[front.unit]}"
    columns = ("point", *front.targets, "largest weights")
    return table_text(title, columns, rows, texts=columns[-1:])


def verification_text(parts: Sequence[CheckedPart]) -> str:
    """Return the table of a verified directory, its faults, and the commands that repair them."""
    rows = []
    for part in parts:
        counts = (str(part.files), bytes_text(part.bytes)) if part.files else ("", "")
        rows.append((part.name, part.state, *counts))
    lines = [table_text("Files against their hashes", ("part", "state", "files", "size"), rows)]
    for part in parts:
        lines += [f"{part.name}: {name}: {what}" for name, what in part.faults.items()]
        lines += [f"{part.name}: to make it again: {part.fix}"] if part.fix else []
    return "\n".join(lines)


def _sureness(proposal: Proposal) -> str:
    if proposal.is_own or proposal.optimism.estimate is None:
        return "not found by a search"
    held_out = f"optimism: {proposal.optimism.estimate:.4f}"
    moved = proposal.stability
    if moved is None:
        return held_out
    return (
        f"stability: {100 * moved.mean:.0f}% of the mixture moves when trials are resampled;"
        f" {held_out}"
    )


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
    lines = []
    for name, row in rows.items():
        if row is not None:
            cells = [row.get(column) for column in shown]
            lines.append((name, *("" if cell is None else f"{cell:.4g}" for cell in cells)))
    table = table_text(title, ("target", *(columns[column] for column in shown)), lines)
    notes = "".join(f"{note}\n" for note in found["notes"])
    return f"{table}\n{notes}{_mean_ranks(found)}"


def _mean_ranks(found: Mapping[str, Any]) -> str:
    mean, controls = found["mean_spearman"], found["mean_controls"]
    if mean is None:
        return "mean Spearman over targets: undefined, every target is constant"
    others = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in controls.items()
        if value is not None
    ]
    return f"mean Spearman over targets: {mean:.4f} ({', '.join(others)})"


def _proposal_table(proposal: Proposal) -> str:
    columns = ("natural", "proposed", *(("epochs",) if proposal.epochs is not None else ()))
    whose = "Your mixture" if proposal.is_own else "Proposal"
    rows = []
    for domain, weight in sorted(proposal.mixture.items(), key=lambda item: -item[1]):
        row = [domain, f"{100 * proposal.natural[domain]:.1f}%", f"{100 * weight:.1f}%"]
        if proposal.epochs is not None:
            row.append(f"{proposal.epochs[domain]:.2f}")
        rows.append(row)
    return table_text(f"{whose} for {proposal.objective}", ("domain", *columns), rows)


def _mixture_table(found: Recommendation) -> str:
    columns = ("natural", "recommended", *(("epochs",) if found.epochs is not None else ()))
    title, rows = f"Shares of the training tokens, for {found.objective}", []
    for domain, weight in sorted(found.mixture.items(), key=lambda item: -item[1]):
        row = [domain, f"{100 * found.natural[domain]:.1f}%", f"{100 * weight:.1f}%"]
        if found.epochs is not None:
            row.append(f"{found.epochs[domain]:.2f}")
        rows.append(row)
    return table_text(title, ("domain", *columns), rows)


def _gains_table(found: Recommendation, validation: Validation) -> str:
    """Show predicted gains beside validated ones; levels are those of validation alone."""
    title = f"Gain of {named(found.chosen)} over others, {UNITS[found.unit]} (above 0 is better)"
    level = f"loss at {short_count(found.tokens)}"
    columns = ("over", level, "gain", "95% interval", "predicted", "verdict")
    rows = [(named(found.chosen), f"{validation.mean(found.chosen):.4f}", "", "", "", "")]
    for name, gain in found.gains.items():
        one = gain.validated
        predicted = "" if gain.predicted is None else f"{gain.predicted.value:+.4f}"
        interval = f"{one.low:+.4f} to {one.high:+.4f}"
        level = f"{validation.mean(name):.4f}"
        value = f"{one.value:+.4f}"
        rows.append((named(name), level, value, interval, predicted, gain.verdict))
    return table_text(title, columns, rows, texts=("verdict",))


def _costs(found: Recommendation) -> list[str]:
    """Describe the change of losses outside the objective, the worst first."""
    if not found.costs:
        return []
    shown = [
        f"{name} {cost.value:+.4f} ({cost.low:+.4f} to {cost.high:+.4f})"
        for name, cost in list(found.costs.items())[:COSTS]
    ]
    more = len(found.costs) - len(shown)
    ending = f"; and {more} more in the report" if more else ""
    said = "losses outside the objective, change from natural (above 0 is worse)"
    return [wrapped(f"{said}: {'; '.join(shown)}{ending}"), ""]
