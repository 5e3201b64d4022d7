"""The figures of a run's experts, by the name of their file in `figures/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.reporting import (
    figure_svg,
    plot_distances,
    plot_domain_experts,
    plot_expert_change,
    plot_expert_history,
    plot_layer_domains,
    plot_load,
    plot_tables,
)
from mixopt.routing import AnyWindow, Assignments, ExpertChange
from mixopt.system import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTIONS = {
    "experts_load": "The load of every layer's experts in training; grey is even, darker is more.",
    "experts_by_layer": "Each domain in each layer: busiest expert, own experts, distance.",
    "experts_domains": "How each domain's tokens fall on the experts; grey is an even share.",
    "experts_distances": "How far apart the experts of each pair of domains are; 0 is alike.",
    "experts_over_time": "Balance and specialisation of each layer over the steps.",
    "experts_before_after": "Experts before and after a change of weights; a ring is before.",
    "experts_history": "The load of each expert of one layer over the steps, in all and by domain.",
}


def still_figures(train: Assignments, compared: Assignments) -> dict[str, Figure]:
    """Draw what experts are given at one time.

    Args:
        train: Of training, whose load is shown.
        compared: What domains are compared by: held-out text, or training where there is none.
    """
    found = {
        "experts_load": plot_load(train),
        "experts_by_layer": plot_layer_domains(compared),
        "experts_domains": plot_domain_experts(compared),
    }
    if len(compared.domains) > 1:
        found["experts_distances"] = plot_distances(compared)
    return found


def moving_figures(
    windows: Sequence[AnyWindow], changes: Sequence[tuple[float, str]] = ()
) -> dict[str, Figure]:
    """Draw what changes over the windows of a run; nothing where there is one alone.

    Args:
        windows: In their order.
        changes: Steps after which the weights changed, and what changed.
    """
    if len(windows) < 2:
        return {}
    keys = list(windows[-1].sizes)
    middle = keys[len(keys) // 2]
    tables = [(float(window.end), window.tables[0]) for window in windows]
    counts = [(float(window.end), window.assignments.of_router(middle)) for window in windows]
    return {
        "experts_over_time": plot_tables(tables, changes=changes),
        "experts_history": plot_expert_history(counts, middle, changes=changes),
    }


def change_figures(change: ExpertChange | None) -> dict[str, Figure]:
    """Draw the experts before and after a change of weights, where there is one."""
    return {} if change is None else {"experts_before_after": plot_expert_change(change)}


def write_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures as SVG, and return the files.

    Raises:
        RunError: The folder cannot be written.
    """
    files = []
    for name, figure in figures.items():
        files.append(folder / f"{name}.svg")
        write_text(files[-1], figure_svg(figure))
    return files
