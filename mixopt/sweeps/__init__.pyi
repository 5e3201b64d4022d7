from .contract import (
    Ended as Ended,
    Executor as Executor,
    Job as Job,
    Place as Place,
    Site as Site,
    State as State,
    exit_text as exit_text,
    make_executor as make_executor,
)
from .devices import (
    WorkerDevice as WorkerDevice,
    find_gpus as find_gpus,
    worker_devices as worker_devices,
)
from .group_runner import GroupOutcome as GroupOutcome, GroupRunner as GroupRunner
from .local import LocalExecutor as LocalExecutor
from .progress import (
    ATTEMPTS as ATTEMPTS,
    METRICS as METRICS,
    AttemptRecord as AttemptRecord,
    GroupState as GroupState,
    read_attempts as read_attempts,
    read_progress as read_progress,
    seconds_left as seconds_left,
    sweep_totals as sweep_totals,
)
from .ray_tasks import RayExecutor as RayExecutor
from .slurm import SlurmExecutor as SlurmExecutor
from .sweep import (
    FILES as FILES,
    Means as Means,
    cancel_submitted as cancel_submitted,
    failure_kind as failure_kind,
    going_on as going_on,
    read_groups as read_groups,
    run_trials as run_trials,
)
from .trial_files import (
    GROUPS as GROUPS,
    ROUNDS as ROUNDS,
    SIZES as SIZES,
    WORK as WORK,
    LogPart as LogPart,
    TrialFolder as TrialFolder,
    is_plain as is_plain,
    logs_in as logs_in,
    part_of as part_of,
    read_entry as read_entry,
    result_from_json as result_from_json,
    result_to_json as result_to_json,
    trial_fingerprint as trial_fingerprint,
    trial_from_json as trial_from_json,
    trial_paths as trial_paths,
    trial_to_json as trial_to_json,
)
