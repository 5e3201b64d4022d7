"""Show what a run found: tables for a terminal, and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.reporting.anneals_section import write_anneals as write_anneals
    from mixopt.reporting.anneals_table import (
        anneals_json as anneals_json,
        anneals_text as anneals_text,
    )
    from mixopt.reporting.counts_table import counts_text as counts_text
    from mixopt.reporting.expert_drawing import (
        ExpertDrawing as ExpertDrawing,
        draw_step as draw_step,
        drawn_files as drawn_files,
    )
    from mixopt.reporting.expert_options import ExpertOptions as ExpertOptions
    from mixopt.reporting.experts_of_run import draw_experts as draw_experts, experts as experts
    from mixopt.reporting.forecast_text import forecast_lines as forecast_lines
    from mixopt.reporting.readiness_table import readiness_text as readiness_text
    from mixopt.reporting.report import write_report as write_report
    from mixopt.reporting.schedule_table import schedule_text as schedule_text
    from mixopt.reporting.step_results import step_result as step_result
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
            "anneals_section": ["write_anneals"],
            "anneals_table": ["anneals_json", "anneals_text"],
            "counts_table": ["counts_text"],
            "expert_drawing": ["ExpertDrawing", "draw_step", "drawn_files"],
            "expert_options": ["ExpertOptions"],
            "experts_of_run": ["draw_experts", "experts"],
            "forecast_text": ["forecast_lines"],
            "readiness_table": ["readiness_text"],
            "schedule_table": ["schedule_text"],
            "step_results": ["step_result"],
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
