"""Figures: functions that take what mixopt made and return a matplotlib `Figure`.

The page, notebooks, the command line and MLflow draw by these functions alone. `run.plot`,
`fit.plot` and `trials.plot` call them with their own objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.plots.anneals_plot import plot_anneals as plot_anneals
    from mixopt.plots.design_plot import plot_design as plot_design
    from mixopt.plots.expert_change_plot import (
        mark_changes as mark_changes,
        name_changes as name_changes,
        plot_expert_change as plot_expert_change,
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
    )
    from mixopt.plots.fit_plots import FitPlots as FitPlots, TrialPlots as TrialPlots
    from mixopt.plots.front_plot import plot_front as plot_front
    from mixopt.plots.held_out_plots import (
        plot_held_out as plot_held_out,
        plot_regret as plot_regret,
    )
    from mixopt.plots.mixture_bars import (
        plot_epochs as plot_epochs,
        plot_mixtures as plot_mixtures,
    )
    from mixopt.plots.page_figures import page_svg as page_svg
    from mixopt.plots.response_plots import (
        plot_interactions as plot_interactions,
        plot_responses as plot_responses,
    )
    from mixopt.plots.run_experts import plot_run_experts as plot_run_experts
    from mixopt.plots.run_plots import RunPlots as RunPlots
    from mixopt.plots.schedule_plot import (
        draw_schedule as draw_schedule,
        plot_schedule as plot_schedule,
    )
    from mixopt.plots.ternary_plot import plot_ternary as plot_ternary
    from mixopt.plots.training_plot import plot_training as plot_training
    from mixopt.plots.validation_plots import (
        plot_gains as plot_gains,
        plot_validation as plot_validation,
        plot_validation_curves as plot_validation_curves,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "anneals_plot": ["plot_anneals"],
            "design_plot": ["plot_design"],
            "expert_change_plot": ["mark_changes", "name_changes", "plot_expert_change"],
            "expert_maps": ["plot_layer_domains", "plot_load"],
            "expert_plots": [
                "plot_distances",
                "plot_domain_experts",
                "plot_expert_history",
                "plot_tables",
                "plot_windows",
            ],
            "figure_style": ["figure_png", "figure_svg"],
            "fit_plots": ["FitPlots", "TrialPlots"],
            "front_plot": ["plot_front"],
            "held_out_plots": ["plot_held_out", "plot_regret"],
            "mixture_bars": ["plot_epochs", "plot_mixtures"],
            "page_figures": ["page_svg"],
            "response_plots": ["plot_interactions", "plot_responses"],
            "run_experts": ["plot_run_experts"],
            "run_plots": ["RunPlots"],
            "schedule_plot": ["draw_schedule", "plot_schedule"],
            "ternary_plot": ["plot_ternary"],
            "training_plot": ["plot_training"],
            "validation_plots": ["plot_gains", "plot_validation", "plot_validation_curves"],
        },
    )
