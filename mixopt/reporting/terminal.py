"""What a run and its steps found, for a terminal: the answer in one screen, proposals, checks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mixopt.fitting import readiness
from mixopt.objective import UNITS
from mixopt.proposals import (
    Forecast,
    Front,
    Interval,
    Proposal,
    Recommendation,
    Validation,
    named,
)
from mixopt.reporting.tables import table_text
from mixopt.run_directory import RECOMMENDATION, Run, base_losses
from mixopt.system import (
    difference_text,
    interval_text,
    loss_text,
    short_count,
    wrapped,
)

MAX_SHARES = 4  # domains of a point of a front
MAX_COSTS = 5  # losses beside the objective that the first screen names
CHECKPOINT = "before: the checkpoint"


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


def step_result(run: Run, step: str) -> dict[str, Any]:
    """Return what a step that is done found, as plain values."""
    path = run.path
    if step == "prepare":
        corpus, tokenizer = run.corpus, run.config.corpus.tokenizer
        sizes = {"tokens": corpus.inventory, "vocab_size": corpus.vocab_size}
        return {"corpus": str(path / "corpus"), "tokenizer": tokenizer, **sizes}
    if step == "design":
        return {"trials": len(run.design), "roles": dict(Counter(one.role for one in run.design))}
    if step == "sweep":
        return {"trials": len(run.trials), "table": str(path / "trials.parquet")}
    if step == "fit":
        ready = readiness(run.fit).to_json()
        return {"regressor": run.fit.name, "summary": run.fit.summary(), "readiness": ready}
    if step == "validate":
        found = run.recommendation.to_json()
        return {"recommendation": found, "validation": run.validation.to_json()}
    return run.proposal.to_json() if step == "propose" else {"report": str(path / "report.html")}


def _forgetting(run: Run) -> list[str]:
    """Return what trials from a checkpoint forget; nothing where they begin with random weights."""
    mixtures, rows = forgetting_rows(run)
    if not rows:
        return []
    columns = ("loss", "before", *mixtures, "change", "95% interval")
    unit = UNITS[run.objective.unit]
    return [table_text(f"{CHECKPOINT.capitalize()}, {unit}", columns, rows) + "\n"]


def forgetting_rows(run: Run) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the losses of the checkpoint that trials begin with, beside those of mixtures."""
    base = base_losses(run)
    if base is None or not run.is_done("validate"):
        return [], []
    validation, chosen = run.validation, run.recommendation.chosen
    natural = ["natural"] if "natural" in validation.mixtures else []
    mixtures, rows = list(dict.fromkeys([*natural, chosen])), []
    for name in validation.trials.targets:
        if name not in base:
            continue
        means = [loss_text(validation.mean(mixture, name)) for mixture in mixtures]
        found = validation.compare_with("base", base[name], name, of=chosen)
        change = ("", "")
        if found is not None:
            change = (difference_text(found.mean), interval_text(found.low, found.high))
        rows.append((name, loss_text(base[name]), *means, *change))
    return [named(mixture) for mixture in mixtures], rows


def recommendation_text(found: Recommendation, validation: Validation) -> str:
    """Return the answer in one line, the mixture, its gains, and the other losses."""
    lines = [
        wrapped(found.headline),
        "",
        _shares_table(
            f"Shares of the training tokens, for {found.objective}", found, "recommended"
        ),
        _gains_table(found, validation),
        *([wrapped(validation.means_note), ""] if validation.means_note else []),
        *_costs(found),
        *(wrapped(f"warning: {warning}") for warning in found.warnings),
    ]
    return "\n".join(lines) + "\n"


def proposal_text(proposal: Proposal) -> str:
    """Return the table of a proposal, its prediction and its warnings."""
    predicted = proposal.predicted_objective
    whose = "Your mixture" if proposal.is_own else "Proposal"
    lines = [
        _shares_table(f"{whose} for {proposal.objective}", proposal, "proposed"),
        f"predicted: {predicted.value:.4f} {UNITS[proposal.unit]}, 90% interval {_ends(predicted)}",
        wrapped(f"effective domains: {proposal.effective_domains:.1f}; {_sureness(proposal)}"),
        *(wrapped(f"active constraint: {limit}") for limit in proposal.binding),
        *(wrapped(f"warning: {warning}") for warning in proposal.warnings),
    ]
    return "\n".join(lines) + "\n"


def forecast_lines(forecast: Forecast) -> str:
    """Return the tables of a mixture, its losses and gains, and the constraints that it breaks."""
    found = forecast.predicted
    unit, value = UNITS[found.unit], found.predicted_objective
    losses = [(name, f"{loss.value:.4f}", _ends(loss)) for name, loss in found.losses.items()]
    gains = [
        (
            f"best trial ({found.best_trial})" if name == "best_trial" else name,
            f"{gain.value:+.4f}",
            _ends(gain, "+.4f"),
        )
        for name, gain in found.gains.items()
    ]
    lines = [
        _shares_table(f"Mixture for {found.objective}", found, "mixture"),
        table_text("Predicted losses", ("evaluation domain", "predicted", "90% interval"), losses),
        table_text(
            f"Predicted gains, {unit} (above 0 is better)", ("over", "gain", "90% interval"), gains
        ),
    ]
    if forecast.costs:
        rows = [(n, f"{c.value:+.4f}", _ends(c, "+.4f")) for n, c in forecast.costs.items()]
        title = "Losses outside the objective, change from natural (above 0 is worse)"
        lines.append(table_text(title, ("evaluation domain", "change", "90% interval"), rows))
    lines += [
        f"predicted: {value.value:.4f} {unit}, 90% interval {_ends(value)}",
        *(f"broken constraint: {line}" for line in forecast.broken),
        *(f"warning: {warning}" for warning in found.warnings),
    ]
    return "\n".join(lines)


def _ends(interval: Interval, form: str = ".4f") -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"


def front_text(front: Front) -> str:
    """Return a table of a front: each point's predicted losses, and its largest weights."""
    rows = []
    for number, point in enumerate(front.points, start=1):
        losses = [f"{point.losses[name].value:.4f}" for name in front.targets]
        weights = sorted(point.proposal.mixture.items(), key=lambda item: -item[1])[:MAX_SHARES]
        largest = ", ".join(f"{name} {100 * w:.0f}%" for name, w in weights if w >= 0.005)
        rows.append((str(number), *losses, largest))
    title = f"Pareto front of {' and '.join(front.targets)}, {UNITS[front.unit]}"
    columns = ("point", *front.targets, "largest weights")
    return table_text(title, columns, rows, texts=columns[-1:])


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


def _shares_table(title: str, found: Proposal | Recommendation, called: str) -> str:
    """Return the table of a mixture beside natural, the largest share first."""
    columns = ["domain", "natural", called, *(["epochs"] if found.epochs is not None else [])]
    rows = []
    for domain, weight in sorted(found.mixture.items(), key=lambda item: -item[1]):
        row = [domain, f"{100 * found.natural[domain]:.1f}%", f"{100 * weight:.1f}%"]
        if found.epochs is not None:
            row.append(f"{found.epochs[domain]:.2f}")
        rows.append(row)
    return table_text(title, columns, rows)


def _gains_table(found: Recommendation, validation: Validation) -> str:
    """Show predicted gains beside validated ones; levels are those of validation alone."""
    title = f"Gain of {named(found.chosen)} over others, {UNITS[found.unit]} (above 0 is better)"
    level = f"loss at {short_count(found.tokens)}"
    columns = ("over", level, "gain", "95% interval", "predicted", "verdict")
    rows = [(named(found.chosen), f"{validation.mean(found.chosen):.4f}", "", "", "", "")]
    for name, gain in found.gains.items():
        one = gain.validated
        predicted = "" if gain.predicted is None else f"{gain.predicted.value:+.4f}"
        mean, value = f"{validation.mean(name):.4f}", f"{one.value:+.4f}"
        rows.append((named(name), mean, value, _ends(one, "+.4f"), predicted, gain.verdict))
    return table_text(title, columns, rows, texts=("verdict",))


def _costs(found: Recommendation) -> list[str]:
    """Describe the change of losses outside the objective, the worst first."""
    if not found.costs:
        return []
    shown = [
        f"{name} {cost.value:+.4f} ({_ends(cost, '+.4f')})"
        for name, cost in list(found.costs.items())[:MAX_COSTS]
    ]
    more = len(found.costs) - len(shown)
    ending = f"; and {more} more in the report" if more else ""
    said = "losses outside the objective, change from natural (above 0 is worse)"
    return [wrapped(f"{said}: {'; '.join(shown)}{ending}"), ""]
