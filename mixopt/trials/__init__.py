"""Trials and proxies, the table of trials, and every way to read one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.trials.checks import (
        LEAST_MIXTURES as LEAST_MIXTURES,
        check_trials as check_trials,
        settled as settled,
        trials_fingerprint as trials_fingerprint,
        without_flat_tasks as without_flat_tasks,
    )
    from mixopt.trials.columns import (
        BPB as BPB,
        LARGEST_LOSS as LARGEST_LOSS,
        LOSS as LOSS,
        PREFIX as PREFIX,
        WEIGHT as WEIGHT,
        Unit as Unit,
        listed as listed,
        loss_column as loss_column,
        schema as schema,
    )
    from mixopt.trials.design_table import read_design as read_design, write_design as write_design
    from mixopt.trials.evaluation_files import (
        Evaluations as Evaluations,
        Harness as Harness,
        read_evaluations as read_evaluations,
    )
    from mixopt.trials.expert_table import (
        TrialExperts as TrialExperts,
        write_experts as write_experts,
    )
    from mixopt.trials.loss_units import (
        bits_per_nat as bits_per_nat,
        in_bits_per_byte as in_bits_per_byte,
    )
    from mixopt.trials.proxy import (
        Doing as Doing,
        Losses as Losses,
        Progress as Progress,
        Proxy as Proxy,
        Role as Role,
        Training as Training,
        Trial as Trial,
        TrialResult as TrialResult,
        make_proxy as make_proxy,
    )
    from mixopt.trials.published_tables import (
        LOSS_SUFFIXES as LOSS_SUFFIXES,
        without_affixes as without_affixes,
    )
    from mixopt.trials.readiness import (
        Readiness as Readiness,
        Replicates as Replicates,
        State as State,
        readiness_of as readiness_of,
    )
    from mixopt.trials.result_files import (
        GROUPS as GROUPS,
        ROUNDS as ROUNDS,
        SIZES as SIZES,
        WORK as WORK,
        TrialFolder as TrialFolder,
        read_entry as read_entry,
        result_from_json as result_from_json,
        result_to_json as result_to_json,
        trial_from_json as trial_from_json,
        trial_paths as trial_paths,
        trial_to_json as trial_to_json,
    )
    from mixopt.trials.simulated_epochs import (
        Pool as Pool,
        SimulatedEpochs as SimulatedEpochs,
        simulated_target as simulated_target,
    )
    from mixopt.trials.start_record import (
        START_FILE as START_FILE,
        StartRecord as StartRecord,
        measure_start as measure_start,
    )
    from mixopt.trials.table import Trials as Trials, best_trial as best_trial
    from mixopt.trials.table_options import TableOptions as TableOptions
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "checks": [
                "LEAST_MIXTURES",
                "check_trials",
                "settled",
                "trials_fingerprint",
                "without_flat_tasks",
            ],
            "columns": [
                "BPB",
                "LARGEST_LOSS",
                "LOSS",
                "PREFIX",
                "Unit",
                "WEIGHT",
                "listed",
                "loss_column",
                "schema",
            ],
            "design_table": ["read_design", "write_design"],
            "evaluation_files": ["Evaluations", "Harness", "read_evaluations"],
            "expert_table": ["TrialExperts", "write_experts"],
            "loss_units": ["bits_per_nat", "in_bits_per_byte"],
            "proxy": [
                "Doing",
                "Losses",
                "Progress",
                "Proxy",
                "Role",
                "Training",
                "Trial",
                "TrialResult",
                "make_proxy",
            ],
            "published_tables": ["LOSS_SUFFIXES", "without_affixes"],
            "readiness": ["Readiness", "Replicates", "State", "readiness_of"],
            "result_files": [
                "GROUPS",
                "ROUNDS",
                "SIZES",
                "WORK",
                "TrialFolder",
                "read_entry",
                "result_from_json",
                "result_to_json",
                "trial_from_json",
                "trial_paths",
                "trial_to_json",
            ],
            "simulated_epochs": ["Pool", "SimulatedEpochs", "simulated_target"],
            "start_record": ["START_FILE", "StartRecord", "measure_start"],
            "table": ["Trials", "best_trial"],
            "table_options": ["TableOptions"],
        },
    )
