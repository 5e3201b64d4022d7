"""The Ray executor: one Ray task for each group, on nodes that share the run directory.

A task passes its folder to a worker process that stays on the node for the next group, as with the
local executor. Ray assigns CPUs, memory and GPUs, and reports when a node or a process dies; tasks
end with their owner. Lost groups are retried and counted in mixopt.sweeps.retries.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import ByteSize, Field

from mixopt.errors import ConfigError, PluginError, RunError
from mixopt.sweeps.contract import Ended, Site, State
from mixopt.sweeps.groups import has_result
from mixopt.sweeps.local import VISIBLE, Worker, WorkerDevice, find_gpus
from mixopt.system import checked_as, host_name, within

DEADLINE = 30.0  # seconds that a call to the cluster may take
TICK = 0.05  # seconds between two checks for a result
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_WORKERS: dict[str | None, Worker] = {}  # by GPUs; used in Ray's worker processes only


class RayExecutor:
    """Tasks on the nodes of a Ray cluster; a handle is the path of a folder."""

    poll = 0.2
    outlives_owner = False

    def __init__(
        self,
        site: Site,
        *,
        address: str = "auto",
        memory: int | str | None = None,
        cpus: float = 1.0,
    ) -> None:
        """Check the options, and connect to the cluster."""
        self._ray = import_ray()
        self._unreachable = (self._ray.exceptions.RayError, ConnectionError)
        self._needs = {"CPU": checked_as(_Positive, cpus, "sweep.options.cpus", ConfigError)}
        if memory is not None:
            size = checked_as(ByteSize, memory, "sweep.options.memory", ConfigError)
            self._needs["memory"] = float(size)
        self._workers = site.workers
        self.queues = site.workers is None
        self._tasks = dict[str, Any]()
        self._is_ours = connect(address)
        gpus = site.gpus
        if gpus is None:
            gpus = float("GPU" in _within_deadline(self._ray.cluster_resources))
        self._needs["GPU"] = 0.0 if site.device == "cpu" else gpus

    @property
    def slots(self) -> int:
        """Number of folders that train at once on the cluster's present nodes."""
        return self._workers or self._workers_that_fit()

    def start(self, folders: Sequence[Path]) -> list[str]:
        """Submit one task for each folder."""
        if self.queues and not self._tasks:  # raise now instead of waiting silently
            self._workers_that_fit()
        gpus = self._needs["GPU"]
        task = self._ray.remote(train_on_node).options(
            max_retries=0,
            num_cpus=self._needs["CPU"],
            num_gpus=gpus,
            memory=self._needs.get("memory"),
        )
        handles = [str(folder) for folder in folders]
        self._tasks |= {handle: task.remote(handle, gpus) for handle in handles}
        return handles

    def states(self, handles: Sequence[str]) -> dict[str, State]:
        """Return which tasks have ended."""
        tasks = {handle: self._tasks[handle] for handle in handles}
        wait = partial(self._ray.wait, list(tasks.values()), num_returns=len(tasks), timeout=0)
        try:
            ready = set(_within_deadline(wait)[0])
        except self._unreachable as error:
            raise RunError(
                f"Ray: the cluster can no longer be reached: {_one_line(error)}; run the sweep"
                " again"
            ) from error
        states: dict[str, State] = {}
        for handle, task in tasks.items():
            states[handle] = self._end_of(task) if task in ready else "waiting"
        return states

    def cancel(self, handles: Sequence[str]) -> None:
        """Kill tasks, or take them out of the queue; Ray ends the child processes of a task."""
        for handle in handles:
            with suppress(*self._unreachable, RunError):
                _within_deadline(partial(self._ray.cancel, self._tasks[handle], force=True))

    def close(self) -> None:
        """Disconnect from the cluster, which ends all tasks."""
        if self._is_ours:
            with suppress(RunError):
                _within_deadline(self._ray.shutdown)

    def _end_of(self, task: Any) -> State:
        try:
            answer = _within_deadline(partial(self._ray.get, task, timeout=DEADLINE))
        except self._ray.exceptions.OutOfMemoryError as error:
            return Ended(f"Ray ended the worker for memory: {_one_line(error)}", "memory")
        except self._unreachable as error:
            return Ended(f"Ray lost the worker or its node: {_one_line(error)}", "lost")
        if isinstance(answer, str):
            raise RunError(f"Ray: {answer}")
        return answer or Ended("its result is not visible here", "lost")

    def _workers_that_fit(self) -> int:
        """Return how many workers fit on the cluster; raise RunError if none does."""
        resources = _within_deadline(self._ray.cluster_resources)
        needs = {name: amount for name, amount in self._needs.items() if amount}
        counts = []
        for name, amount in needs.items():
            available = resources.get(name, 0.0) + 1e-9  # for fractions of a GPU
            counts.append(int(available // amount))
        if min(counts) == 0:
            worker = ", ".join(f"{amount:g} {name}" for name, amount in needs.items())
            raise RunError(
                f"Ray: the cluster has no room for a worker of {worker}. Ask for less (sweep.gpus,"
                " sweep.options.cpus and memory), or set sweep.workers to wait for more nodes"
            )
        return min(counts)


def train_on_node(folder: str, gpus: float) -> Ended | str | None:
    """Train a folder on the node of this Ray task; return nothing, or what went wrong."""
    path = Path(folder)
    if not path.is_dir():
        return f"{folder}: not found on {host_name()}; use an --out folder that all nodes share"
    worker = _worker_on_node(gpus)
    worker.begin(path)
    try:
        while worker.ended is None and not worker.is_free:
            time.sleep(TICK)
        end = worker.ended or Ended("the group was stopped by its owner", "lost")
        return None if has_result(path) else end
    finally:
        if not has_result(path):
            worker.kill()


def _worker_on_node(gpus: float) -> Worker:
    """Return this Ray process's worker for its GPUs, or for its core."""
    if not gpus:
        return _WORKERS.setdefault(None, Worker(WorkerDevice(None, "cpu", gpus)))
    visible = os.environ.get(VISIBLE)
    available = find_gpus()
    model = available[0].model if available else "gpu"
    return _WORKERS.setdefault(visible, Worker(WorkerDevice(visible, model, gpus)))


def import_ray() -> Any:
    """Import and return the module `ray`."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise PluginError("executor 'ray' needs Ray: pip install 'mixopt[ray]'") from error
    return ray


def connect(address: str) -> bool:
    """Connect this process to a cluster; return False if it was connected before."""
    ray = import_ray()
    if ray.is_initialized():
        return False
    # Ray's client refuses further options.
    quiet = {} if address.startswith("ray://") else {"configure_logging": False}
    try:
        _within_deadline(lambda: ray.init(address=address, log_to_driver=False, **quiet))
    except (
        ConnectionError, RuntimeError, ValueError, OSError, RunError, ray.exceptions.RayError,
    ) as error:  # fmt: skip
        raise RunError(
            f"Ray: no cluster can be reached at {address}: {_one_line(error)}; start it with 'ray"
            " start --head', or change sweep.options.address: auto, host:port or ray://host:10001"
        ) from error
    return True


def _within_deadline(call: Callable[[], Any]) -> Any:
    """Return the result of a call to the cluster, or raise RunError after a deadline."""
    return within("Ray", call, DEADLINE)


def _one_line(error: BaseException) -> str:
    """Return the first line of a Ray error, which a traceback follows."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
