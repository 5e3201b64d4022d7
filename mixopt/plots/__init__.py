"""Figures: functions that take what mixopt made and return a matplotlib `Figure`.

The page, notebooks and MLflow draw by these functions alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.plots.expert_change_plot import (
        mark_changes as mark_changes,
        name_changes as name_changes,
        plot_change as plot_change,
    )
    from mixopt.plots.expert_maps import (
        plot_layer_domains as plot_layer_domains,
        plot_load as plot_load,
    )
    from mixopt.plots.expert_plots import (
        plot_distances as plot_distances,
        plot_domain_experts as plot_domain_experts,
        plot_expert_history as plot_expert_history,
        plot_tables as plot_tables,
        plot_windows as plot_windows,
    )
    from mixopt.plots.figure_style import (
        figure_png as figure_png,
        figure_svg as figure_svg,
        page_svg as page_svg,
    )
    from mixopt.plots.front_plot import (
        plot_front as plot_front,
    )
    from mixopt.plots.mixture_plots import (
        plot_design as plot_design,
        plot_held_out as plot_held_out,
        plot_responses as plot_responses,
        plot_shares as plot_shares,
    )
    from mixopt.plots.schedule_plot import (
        draw_schedule as draw_schedule,
        plot_schedule as plot_schedule,
    )
    from mixopt.plots.validation_plots import (
        plot_curves as plot_curves,
        plot_gains as plot_gains,
        plot_validation as plot_validation,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "expert_change_plot": ["mark_changes", "name_changes", "plot_change"],
            "expert_maps": ["plot_layer_domains", "plot_load"],
            "expert_plots": [
                "plot_distances",
                "plot_domain_experts",
                "plot_expert_history",
                "plot_tables",
                "plot_windows",
            ],
            "figure_style": ["figure_png", "figure_svg", "page_svg"],
            "front_plot": ["plot_front"],
            "mixture_plots": ["plot_design", "plot_held_out", "plot_responses", "plot_shares"],
            "schedule_plot": ["draw_schedule", "plot_schedule"],
            "validation_plots": ["plot_curves", "plot_gains", "plot_validation"],
        },
    )
