from .exchange import (
    BATCH as BATCH,
    draws as draws,
    export as export,
    import_results as import_results,
    schedule_of as schedule_of,
)
from .experiment_check import Check as Check, check as check
from .first_experiment import domains_text as domains_text, start_experiment as start_experiment
from .from_fit import (
    fit_tables as fit_tables,
    load_fit as load_fit,
    predict as predict,
    propose as propose,
    read_tables as read_tables,
    request_from as request_from,
    verify_fit_folder as verify_fit_folder,
)
from .run_status import (
    find_log as find_log,
    log_lines as log_lines,
    status as status,
    status_lines as status_lines,
    status_of_folder as status_of_folder,
    stop as stop,
    stop_lines as stop_lines,
)
from .steps import run as run, sweep_script as sweep_script
