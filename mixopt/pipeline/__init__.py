"""The steps of a run in order, and the same answers from tables or from an existing fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.pipeline.annealing import (
        AnnealAsked as AnnealAsked,
        anneal as anneal,
        combining as combining,
    )
    from mixopt.pipeline.cancelling import (
        Cancelled as Cancelled,
        cancel as cancel,
        cancel_lines as cancel_lines,
    )
    from mixopt.pipeline.check_text import check_json as check_json, check_lines as check_lines
    from mixopt.pipeline.exporting import (
        ExportAsked as ExportAsked,
        export_from as export_from,
        export_schedule_from as export_schedule_from,
        import_from as import_from,
    )
    from mixopt.pipeline.first_experiment import (
        FirstExperiment as FirstExperiment,
        found_text as found_text,
        start_experiment as start_experiment,
    )
    from mixopt.pipeline.fit_folder import (
        check_fit_folder as check_fit_folder,
        load_fit as load_fit,
        verify_fit_folder as verify_fit_folder,
        write_fit_folder as write_fit_folder,
    )
    from mixopt.pipeline.from_fit import (
        Asked as Asked,
        predict_from as predict_from,
        propose_from as propose_from,
        propose_front_from as propose_front_from,
    )
    from mixopt.pipeline.health import (
        health_json as health_json,
        health_lines as health_lines,
        is_fit as is_fit,
        machine_health as machine_health,
    )
    from mixopt.pipeline.pre_check import (
        PreCheck as PreCheck,
        check_experiment as check_experiment,
    )
    from mixopt.pipeline.run_comparison import (
        RunComparison as RunComparison,
        compare_runs as compare_runs,
        comparison_text as comparison_text,
    )
    from mixopt.pipeline.run_list import (
        ListedRun as ListedRun,
        list_runs as list_runs,
        listed_text as listed_text,
    )
    from mixopt.pipeline.scheduling import ONE_STAGE as ONE_STAGE, schedule_from as schedule_from
    from mixopt.pipeline.serving import work as work
    from mixopt.pipeline.status import run_status as run_status, status_lines as status_lines
    from mixopt.pipeline.steps import (
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
    from mixopt.pipeline.trial_logs import (
        TrialLog as TrialLog,
        failed_trials as failed_trials,
        find_log as find_log,
        follow_log as follow_log,
        logs_of_workers as logs_of_workers,
        missing_log as missing_log,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "annealing": ["AnnealAsked", "anneal", "combining"],
            "cancelling": ["Cancelled", "cancel", "cancel_lines"],
            "check_text": ["check_json", "check_lines"],
            "exporting": ["ExportAsked", "export_from", "export_schedule_from", "import_from"],
            "first_experiment": ["FirstExperiment", "found_text", "start_experiment"],
            "fit_folder": ["check_fit_folder", "load_fit", "verify_fit_folder", "write_fit_folder"],
            "from_fit": ["Asked", "predict_from", "propose_from", "propose_front_from"],
            "health": ["health_json", "health_lines", "is_fit", "machine_health"],
            "pre_check": ["PreCheck", "check_experiment"],
            "run_comparison": ["RunComparison", "compare_runs", "comparison_text"],
            "run_list": ["ListedRun", "list_runs", "listed_text"],
            "scheduling": ["ONE_STAGE", "schedule_from"],
            "serving": ["work"],
            "status": ["run_status", "status_lines"],
            "steps": [
                "design",
                "fit",
                "prepare",
                "propose",
                "report",
                "run",
                "sweep",
                "sweep_script",
                "validate",
            ],
            "trial_logs": [
                "TrialLog",
                "failed_trials",
                "find_log",
                "follow_log",
                "logs_of_workers",
                "missing_log",
            ],
        },
    )
