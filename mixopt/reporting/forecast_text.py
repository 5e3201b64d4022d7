"""The prediction for a mixture in a terminal: losses, gains, and broken constraints."""

from __future__ import annotations

from collections.abc import Iterator

from mixopt.objective import UNITS
from mixopt.proposals import Forecast, Interval, Proposal
from mixopt.reporting.text_table import table_text


def forecast_lines(forecast: Forecast) -> str:
    """Return the tables of a mixture, its losses and gains, and the constraints that it breaks."""
    found = forecast.predicted
    unit, value = UNITS[found.unit], found.predicted_objective
    lines = [
        f"predicted: {value.value:.4f} {unit}, 90% interval {_ends(value, '.4f')}",
        *(f"broken constraint: {line}" for line in forecast.broken),
        *(f"warning: {warning}" for warning in found.warnings),
    ]
    return "\n".join([*_tables(found, unit), *_costs(forecast), *lines])


def _tables(found: Proposal, unit: str) -> Iterator[str]:
    columns = ["domain", "natural", "mixture", *(["epochs"] if found.epochs is not None else [])]
    rows = [
        _share(found, domain) for domain in sorted(found.mixture, key=lambda n: -found.mixture[n])
    ]
    yield table_text(f"Mixture for {found.objective}", columns, rows)
    losses = [
        (name, f"{loss.value:.4f}", _ends(loss, ".4f")) for name, loss in found.losses.items()
    ]
    yield table_text("Predicted losses", ("evaluation domain", "predicted", "90% interval"), losses)
    gains = [(_over(found, n), f"{g.value:+.4f}", _ends(g, "+.4f")) for n, g in found.gains.items()]
    title = f"Predicted gains, {unit} (above 0 is better)"
    yield table_text(title, ("over", "gain", "90% interval"), gains)


def _costs(forecast: Forecast) -> Iterator[str]:
    """Yield the table of losses outside the objective, if there are any."""
    if forecast.costs:
        rows = [(name, f"{c.value:+.4f}", _ends(c, "+.4f")) for name, c in forecast.costs.items()]
        title = "Losses outside the objective, change from natural (above 0 is worse)"
        yield table_text(title, ("evaluation domain", "change", "90% interval"), rows)


def _share(found: Proposal, domain: str) -> list[str]:
    cells = [domain, f"{100 * found.natural[domain]:.1f}%", f"{100 * found.mixture[domain]:.1f}%"]
    return cells if found.epochs is None else [*cells, f"{found.epochs[domain]:.2f}"]


def _over(found: Proposal, name: str) -> str:
    return f"best trial ({found.best_trial})" if name == "best_trial" else name


def _ends(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"
