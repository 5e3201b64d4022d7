from .contract import (
    Ended as Ended,
    Executor as Executor,
    Job as Job,
    Site as Site,
    State as State,
    exit_text as exit_text,
)
from .group_runner import GroupRunner as GroupRunner
from .groups import Beat as Beat, GroupOutcome as GroupOutcome, last_line as last_line
from .local import LocalExecutor as LocalExecutor, worker_devices as worker_devices
from .progress import (
    ATTEMPTS as ATTEMPTS,
    AttemptRecord as AttemptRecord,
    read_attempts as read_attempts,
    read_progress as read_progress,
    seconds_left as seconds_left,
    sweep_totals as sweep_totals,
)
from .proxy import (
    Doing as Doing,
    Progress as Progress,
    Proxy as Proxy,
    Training as Training,
    make_proxy as make_proxy,
)
from .ray_tasks import RayExecutor as RayExecutor
from .slurm import SlurmExecutor as SlurmExecutor
from .sweep import (
    Select as Select,
    cancel_submitted as cancel_submitted,
    failure_kind as failure_kind,
    make_executor as make_executor,
    run_trials as run_trials,
    running_without_owner as running_without_owner,
)
from .trial_files import (
    FILES as FILES,
    GROUPS as GROUPS,
    ROUNDS as ROUNDS,
    SIZE as SIZE,
    WORK as WORK,
    TrialFolder as TrialFolder,
    log_of_trial as log_of_trial,
    read_entry as read_entry,
    read_groups as read_groups,
    result_to_json as result_to_json,
    trial_fingerprint as trial_fingerprint,
    trial_paths as trial_paths,
    trial_to_json as trial_to_json,
    valid_result as valid_result,
)
