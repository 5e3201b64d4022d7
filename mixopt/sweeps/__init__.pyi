from .contract import (
    Executor as Executor,
    GroupOutcome as GroupOutcome,
    Job as Job,
    OutlivesOwner as OutlivesOwner,
    Place as Place,
    Report as Report,
    Site as Site,
    cancel_submitted as cancel_submitted,
    going_on as going_on,
    make_executor as make_executor,
)
from .devices import WorkerDevice as WorkerDevice, worker_devices as worker_devices
from .gpu_discovery import find_gpus as find_gpus
from .group_sizes import GroupSizes as GroupSizes
from .groups_file import read_groups as read_groups
from .ledger import (
    ATTEMPTS as ATTEMPTS,
    AttemptRecord as AttemptRecord,
    read_attempts as read_attempts,
)
from .local_executor import LocalExecutor as LocalExecutor
from .on_folder.folder_executor import FolderExecutor as FolderExecutor
from .on_folder.slurm_executor import SlurmExecutor as SlurmExecutor
from .on_folder.work_folder import WorkFolder as WorkFolder, WorkOrder as WorkOrder
from .on_folder.work_share import WorkShare as WorkShare
from .on_folder.work_task import TaskServer as TaskServer
from .on_folder.work_view import (
    WorkTask as WorkTask,
    cancel_work as cancel_work,
    trial_log as trial_log,
    work_tasks as work_tasks,
)
from .on_ray.ray_executor import RayExecutor as RayExecutor
from .progress_file import (
    GroupState as GroupState,
    SweepState as SweepState,
    read_progress as read_progress,
)
from .resumable import FILES as FILES, Means as Means, run_trials as run_trials
from .sweep_metrics import METRICS as METRICS
from .totals import (
    NodeTotals as NodeTotals,
    SweepTotals as SweepTotals,
    sweep_totals as sweep_totals,
)
from .worker_logs import (
    LogPart as LogPart,
    is_plain as is_plain,
    logs_in as logs_in,
    part_of as part_of,
)
from .workplace import Workplace as Workplace
