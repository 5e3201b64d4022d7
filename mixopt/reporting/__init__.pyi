from .anneals_section import write_anneals as write_anneals
from .anneals_table import anneals_json as anneals_json, anneals_text as anneals_text
from .counts_table import counts_text as counts_text
from .expert_drawing import (
    ExpertDrawing as ExpertDrawing,
    draw_step as draw_step,
    drawn_files as drawn_files,
)
from .expert_options import ExpertOptions as ExpertOptions
from .experts_of_run import draw_experts as draw_experts, experts as experts
from .forecast_text import forecast_lines as forecast_lines
from .readiness_table import readiness_text as readiness_text
from .report import write_report as write_report
from .schedule_table import schedule_text as schedule_text
from .step_results import step_result as step_result
from .tasks_table import tasks_text as tasks_text
from .terminal import (
    evaluation_text as evaluation_text,
    front_text as front_text,
    proposal_text as proposal_text,
    run_summary as run_summary,
    summary_text as summary_text,
    verification_text as verification_text,
)
from .text_table import table_text as table_text
