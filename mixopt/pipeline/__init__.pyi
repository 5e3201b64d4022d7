from .check_text import check_json as check_json, check_lines as check_lines
from .exporting import (
    ONE_STAGE as ONE_STAGE,
    ExportAsked as ExportAsked,
    export_from as export_from,
    export_schedule_from as export_schedule_from,
    schedule_from as schedule_from,
    simulate_from as simulate_from,
)
from .first_experiment import (
    FirstExperiment as FirstExperiment,
    found_text as found_text,
    start_experiment as start_experiment,
)
from .from_fit import (
    FitQuery as FitQuery,
    check_fit_folder as check_fit_folder,
    load_fit as load_fit,
    predict_from as predict_from,
    propose_from as propose_from,
    propose_front_from as propose_front_from,
    verify_fit_folder as verify_fit_folder,
    write_fit_folder as write_fit_folder,
)
from .pre_check import PreCheck as PreCheck, check_experiment as check_experiment
from .running_sweep import (
    Cancelled as Cancelled,
    TrialLog as TrialLog,
    cancel as cancel,
    cancel_lines as cancel_lines,
    failed_trials as failed_trials,
    find_log as find_log,
    follow_log as follow_log,
    logs_of_workers as logs_of_workers,
    missing_log as missing_log,
    not_asked as not_asked,
)
from .status import run_status as run_status, status_lines as status_lines
from .steps import (
    design as design,
    fit as fit,
    prepare as prepare,
    propose as propose,
    report as report,
    run as run,
    sweep as sweep,
    sweep_script as sweep_script,
    validate as validate,
)
from .table_options import TableOptions as TableOptions
