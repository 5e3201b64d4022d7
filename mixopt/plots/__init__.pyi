from .anneals_plot import plot_anneals as plot_anneals
from .design_plot import plot_design as plot_design
from .expert_change_plot import (
    mark_changes as mark_changes,
    name_changes as name_changes,
    plot_expert_change as plot_expert_change,
)
from .expert_maps import plot_layer_domains as plot_layer_domains, plot_load as plot_load
from .expert_plots import (
    plot_distances as plot_distances,
    plot_domain_experts as plot_domain_experts,
    plot_expert_history as plot_expert_history,
    plot_tables as plot_tables,
    plot_windows as plot_windows,
)
from .figure_style import figure_png as figure_png, figure_svg as figure_svg
from .fit_plots import FitPlots as FitPlots, TrialPlots as TrialPlots
from .front_plot import plot_front as plot_front
from .held_out_plots import plot_held_out as plot_held_out, plot_regret as plot_regret
from .mixture_bars import plot_epochs as plot_epochs, plot_mixtures as plot_mixtures
from .page_figures import page_svg as page_svg
from .response_plots import plot_interactions as plot_interactions, plot_responses as plot_responses
from .run_experts import plot_run_experts as plot_run_experts
from .run_plots import RunPlots as RunPlots
from .schedule_plot import draw_schedule as draw_schedule, plot_schedule as plot_schedule
from .ternary_plot import plot_ternary as plot_ternary
from .training_plot import plot_training as plot_training
from .validation_plots import (
    plot_gains as plot_gains,
    plot_validation as plot_validation,
    plot_validation_curves as plot_validation_curves,
)
