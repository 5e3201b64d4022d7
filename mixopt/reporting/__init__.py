"""Show what a run found: tables for a terminal, figures, and the page that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.reporting.counts_table import counts_text as counts_text
    from mixopt.reporting.expert_change_plot import plot_change as plot_change
    from mixopt.reporting.expert_drawing import (
        ExpertDrawing as ExpertDrawing,
        draw_step as draw_step,
        drawn_files as drawn_files,
    )
    from mixopt.reporting.expert_maps import (
        plot_layer_domains as plot_layer_domains,
        plot_load as plot_load,
    )
    from mixopt.reporting.expert_options import ExpertOptions as ExpertOptions
    from mixopt.reporting.expert_plots import (
        plot_distances as plot_distances,
        plot_domain_experts as plot_domain_experts,
        plot_windows as plot_windows,
    )
    from mixopt.reporting.experts_of_run import draw_experts as draw_experts, experts as experts
    from mixopt.reporting.figure_style import figure_svg as figure_svg
    from mixopt.reporting.forecast_text import forecast_lines as forecast_lines
    from mixopt.reporting.front_plot import plot_front as plot_front
    from mixopt.reporting.mixture_plots import (
        plot_held_out as plot_held_out,
        plot_shares as plot_shares,
    )
    from mixopt.reporting.readiness_table import readiness_text as readiness_text
    from mixopt.reporting.report import write_report as write_report
    from mixopt.reporting.schedule_plot import draw_schedule as draw_schedule
    from mixopt.reporting.schedule_table import schedule_text as schedule_text
    from mixopt.reporting.tasks_table import tasks_text as tasks_text
    from mixopt.reporting.terminal import (
        evaluation_text as evaluation_text,
        front_text as front_text,
        proposal_text as proposal_text,
        run_summary as run_summary,
        summary_text as summary_text,
        verification_text as verification_text,
    )
    from mixopt.reporting.text_table import table_text as table_text
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "counts_table": ["counts_text"],
            "expert_change_plot": ["plot_change"],
            "expert_drawing": ["ExpertDrawing", "draw_step", "drawn_files"],
            "expert_maps": ["plot_layer_domains", "plot_load"],
            "expert_plots": ["plot_distances", "plot_domain_experts", "plot_windows"],
            "expert_options": ["ExpertOptions"],
            "experts_of_run": ["draw_experts", "experts"],
            "figure_style": ["figure_svg"],
            "forecast_text": ["forecast_lines"],
            "front_plot": ["plot_front"],
            "mixture_plots": ["plot_held_out", "plot_shares"],
            "readiness_table": ["readiness_text"],
            "schedule_plot": ["draw_schedule"],
            "schedule_table": ["schedule_text"],
            "tasks_table": ["tasks_text"],
            "text_table": ["table_text"],
            "report": ["write_report"],
            "terminal": [
                "evaluation_text",
                "front_text",
                "proposal_text",
                "run_summary",
                "summary_text",
                "verification_text",
            ],
        },
    )
