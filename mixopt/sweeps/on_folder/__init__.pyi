from .folder_executor import FolderExecutor as FolderExecutor
from .slurm_executor import SlurmExecutor as SlurmExecutor
from .work_folder import WorkFolder as WorkFolder, WorkOrder as WorkOrder
from .work_gathering import check_no_tasks as check_no_tasks, gather_results as gather_results
from .work_share import WorkShare as WorkShare
from .work_task import TaskServer as TaskServer
from .work_view import (
    WorkTask as WorkTask,
    cancel_work as cancel_work,
    trial_log as trial_log,
    work_tasks as work_tasks,
)
