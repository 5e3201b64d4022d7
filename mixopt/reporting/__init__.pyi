from .explorer import explore as explore
from .figure_style import figure_svg as figure_svg
from .figures import (
    plot_cells as plot_cells,
    plot_design as plot_design,
    plot_front as plot_front,
    plot_held_out as plot_held_out,
    plot_mixtures as plot_mixtures,
    plot_responses as plot_responses,
    plot_validation as plot_validation,
)
from .page import page_svg as page_svg
from .plots import FitPlots as FitPlots, RunPlots as RunPlots, TrialPlots as TrialPlots
from .report import (
    backtest_text as backtest_text,
    write_backtest as write_backtest,
    write_report as write_report,
)
from .run_experts import (
    draw_experts as draw_experts,
    experts as experts,
    plot_domain_experts as plot_domain_experts,
    plot_load as plot_load,
    plot_windows as plot_windows,
)
from .tables import (
    counts_text as counts_text,
    evaluation_text as evaluation_text,
    readiness_text as readiness_text,
    schedule_text as schedule_text,
    table_text as table_text,
    verification_text as verification_text,
)
from .terminal import (
    forecast_lines as forecast_lines,
    front_text as front_text,
    headline_of as headline_of,
    proposal_text as proposal_text,
    recommendation_text as recommendation_text,
    run_summary as run_summary,
    step_result as step_result,
    summary_text as summary_text,
)
from .what_if import (
    law_data as law_data,
    packed_json as packed_json,
    view_script as view_script,
    what_if_section as what_if_section,
)
