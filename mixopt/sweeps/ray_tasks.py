"""Train groups on a cluster of Ray: a task a group, on nodes that share the run directory.

A task hands its folder to a process that the Ray worker keeps, as on this machine. Ray gives it its
part of a node, shows it its GPUs, and says when its node or its process dies; tasks end with their
owner. What is lost is handed out again, and counted, above it.
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mixopt.errors import ConfigError, PluginError, RunError
from mixopt.sweeps.contract import Ended, Place, Site, State
from mixopt.sweeps.devices import CUDA, WorkerDevice
from mixopt.sweeps.group_folder import RESULT
from mixopt.sweeps.local import Worker
from mixopt.sweeps.trial_files import LOGS
from mixopt.system import __version__, host_name, within

DEADLINE = 30.0  # seconds that a call to the cluster may take
KNOCK = 5.0  # seconds for a connection; Ray itself waits minutes where nothing listens
TICK = 0.05  # seconds between two looks of a task at its folder
_ACCELERATOR = "accelerator_type:"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", re.IGNORECASE)
_WORKERS: dict[tuple[str, str | None], Worker] = {}  # of this process, where it is one of Ray's


class RayExecutor:
    """Tasks on the nodes of a cluster; the handle of a folder is its path."""

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
        """Check the options; nothing is connected yet."""
        import_ray()
        if not isinstance(cpus, int | float) or not 0 < cpus < math.inf:
            raise ConfigError(f"sweep.options.cpus: {cpus!r}: give a number over 0")
        self._site, self._address, self._cpus = site, address, float(cpus)
        self._memory, self.queues = memory_bytes(memory), site.workers is None
        self._gpus, self._connected, self._is_ours = 0.0, False, False
        self._tasks: dict[str, Any] = {}

    @property
    def slots(self) -> int:
        """How many folders train at once, as the cluster is now."""
        self._connect()
        return self._site.workers or self._fitting()

    def start(self, folders: Sequence[Path]) -> list[str]:
        """Submit a task a folder."""
        self._connect()
        needs: dict[str, Any] = {"num_cpus": self._cpus, "num_gpus": self._gpus}
        if self._memory is not None:
            needs["memory"] = self._memory
        task = import_ray().remote(train_on_node).options(max_retries=0, **needs)
        for folder in folders:
            self._tasks[str(folder)] = task.remote(str(folder), self._gpus, __version__)
        return [str(folder) for folder in folders]

    def states(self, handles: Sequence[str]) -> dict[str, State]:
        """Return which tasks have ended."""
        ray = import_ray()
        tasks = [self._tasks[handle] for handle in handles]
        try:
            ready, _ = _asked(lambda: ray.wait(tasks, num_returns=len(tasks), timeout=0))
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise RunError(
                f"Ray: the cluster can no longer be reached: {_one_line(error)}; run the sweep"
                " again"
            ) from error
        ended = set(ready)
        return {
            handle: self._end_of(handle) if self._tasks[handle] in ended else "waiting"
            for handle in handles
        }

    def cancel(self, handles: Sequence[str]) -> None:
        """End tasks, and the processes that they have; one that does not listen is killed."""
        ray = import_ray()
        left = [self._tasks[handle] for handle in handles if handle in self._tasks]

        def end(*, force: bool) -> list[Any]:
            for task in left:
                ray.cancel(task, force=force)
            return list(ray.wait(left, num_returns=len(left), timeout=10.0)[1])

        for force in (False, True):
            if left:
                with suppress(ray.exceptions.RayError, ConnectionError, ValueError, RunError):
                    left = _asked(partial(end, force=force))

    def close(self) -> None:
        """Leave the cluster, which ends what is left."""
        if self._is_ours:
            with suppress(RunError):
                _asked(import_ray().shutdown)
        self._connected = self._is_ours = False

    def _end_of(self, handle: str) -> State:
        ray = import_ray()
        try:
            answer = _asked(lambda: ray.get(self._tasks[handle], timeout=DEADLINE))
        except ray.exceptions.OutOfMemoryError as error:
            return Ended(f"Ray ended the worker for memory: {_one_line(error)}", "memory")
        except (ray.exceptions.RayError, ConnectionError) as error:
            return Ended(f"Ray lost the worker or its node: {_one_line(error)}", "lost")
        if isinstance(answer, str):
            raise RunError(f"Ray: {answer}")
        return Ended(*answer) if answer else Ended(f"its result is not seen here: {handle}", "lost")

    def _connect(self) -> None:
        if not self._connected:
            self._is_ours = connect(self._address)
            self._connected = True
            nodes = _asked(cluster_nodes)
            if self._site.device != "cpu":
                has_gpu = any(node["Resources"].get("GPU") for node in nodes)
                self._gpus = float(has_gpu) if self._site.gpus is None else self._site.gpus
            if self._site.workers is None:  # else a task would wait without a word
                self._fitting()

    def _fitting(self) -> int:
        """Return how many workers fit on the nodes; raise RunError where none does."""
        nodes = _asked(cluster_nodes)
        count = sum(self._room(node["Resources"]) for node in nodes)
        if not count:
            raise self._shortfall(nodes)
        return count

    def _room(self, resources: Mapping[str, float]) -> int:
        """Return how many workers fit on a node that has these resources to itself."""
        counts = [_times(resources.get("CPU", 0.0), self._cpus)]
        if 0 < self._gpus < 1:  # a worker's part is of one GPU
            counts.append(int(resources.get("GPU", 0.0)) * _times(1.0, self._gpus))
        else:
            counts.append(_times(resources.get("GPU", 0.0), self._gpus))
        counts.append(_times(resources.get("memory", 0.0), self._memory or 0))
        return int(min(counts))

    def _shortfall(self, nodes: Sequence[Mapping[str, Any]]) -> RunError:
        def words(resources: Mapping[str, float]) -> str:
            amounts = {name: resources.get(name, 0.0) for name in ("CPU", "GPU")}
            memory = resources.get("memory")
            parts = [f"{count:g} {name}" for name, count in amounts.items() if count]
            return ", ".join([*parts, *([f"{memory / 1e9:g} GB"] if memory else [])])

        largest = max(nodes, key=lambda node: self._gpus and node["Resources"].get("GPU", 0.0))
        needs = {"CPU": self._cpus, "GPU": self._gpus, "memory": self._memory or 0.0}
        return RunError(
            f"Ray: none of {len(nodes)} nodes has room for a worker of {words(needs)};"
            f" {node_name(largest)} has {words(largest['Resources'])}. Ask for less (sweep.gpus,"
            " sweep.options.cpus and memory), or set sweep.workers to wait for more nodes"
        )


def train_on_node(folder: str, gpus: float, version: str) -> tuple[str, str] | str | None:
    """Train a folder: a task of Ray's, on the node where it runs."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    node = next((one for one in cluster_nodes() if one["NodeID"] == here), None)
    name = host_name() if node is None else node_name(node)
    if version != __version__:
        return f"node {name} has mixopt {__version__}, and the owner {version}"
    path = Path(folder)
    if not path.is_dir():
        return f"{folder}: not found on {name}; use an --out folder that all nodes share"
    visible = os.environ.get(CUDA) if gpus else None
    log = path.parents[1] / LOGS / f"ray-{name}-{os.getpid()}.log"
    worker = _WORKERS.get((str(log), visible))
    if worker is None:
        kind = "cpu" if node is None else device_kind(node["Resources"], gpus)
        worker = Worker(WorkerDevice(visible, kind), Place(name, kind, gpus), log)
        _WORKERS[str(log), visible] = worker
    worker.begin(path)
    try:
        while not (path / RESULT).exists():
            if worker.ended is not None or not path.exists():
                break
            time.sleep(TICK)
        else:
            return None
        ended = worker.ended or Ended("the group was taken back", "lost")
        return None if (path / RESULT).exists() else (ended.reason, ended.fault)
    finally:
        if not (path / RESULT).exists():
            worker.kill()


def device_kind(resources: Mapping[str, float], gpus: float) -> str:
    """Return the kind of device that a worker has on a node; a part of a GPU is its own."""
    if not gpus:
        return "cpu"
    names = (key.removeprefix(_ACCELERATOR) for key in resources if _ACCELERATOR in key)
    name = next(names, "gpu")
    return name if gpus == 1 else f"{gpus:g} {name}"


def cluster_nodes() -> list[Mapping[str, Any]]:
    """Return the nodes that are alive, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def node_name(node: Mapping[str, Any]) -> str:
    """Return what people call a node."""
    name, address = node.get("NodeName"), node.get("NodeManagerAddress")
    return str(name if name and name != address else node.get("NodeManagerHostname") or address)


def import_ray() -> Any:
    """Return the module of Ray."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise PluginError("executor 'ray' needs Ray: pip install 'mixopt[ray]'") from error
    return ray


def connect(address: str) -> bool:
    """Connect this process to a cluster, unless it is connected."""
    ray = import_ray()
    if ray.is_initialized():
        return False
    if address != "auto":
        _knock(address)
    # A client may say no more than this.
    quiet = {} if address.startswith("ray://") else {"configure_logging": False}
    try:
        _asked(lambda: ray.init(address=address, log_to_driver=False, **quiet))
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise _unreached(address, _one_line(error)) from error
    return True


def memory_bytes(memory: int | str | None) -> int | None:
    """Return bytes of what a user wrote."""
    if memory is None:
        return None
    found = _AMOUNT.fullmatch(str(memory).strip())
    if found is None or isinstance(memory, bool):
        raise ConfigError(f"sweep.options.memory: {memory!r}: give bytes, or text such as 8GB")
    number, unit, binary = found.groups()
    factor = _UNITS[unit.upper()]
    return int(float(number) * (1024 ** round(math.log(factor, 1000)) if binary else factor))


def _asked(call: Callable[[], Any]) -> Any:
    """Return what a call to the cluster returns, which may wait without end."""
    return within("Ray", call, DEADLINE)


def _knock(address: str) -> None:
    """Check that something listens."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdigit():
        raise RunError(
            f"Ray: sweep.options.address {address!r} is not an address; give auto, host:port or "
            "ray://host:10001"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()
    except (OSError, OverflowError) as error:
        raise _unreached(address, str(error)) from error


def _unreached(address: str, reason: str) -> RunError:
    return RunError(
        f"Ray: no cluster can be reached at {address}: {reason}; start it with 'ray start "
        "--head', or change sweep.options.address"
    )


def _one_line(error: BaseException) -> str:
    """Return the first line of an error of Ray's; a traceback follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _times(total: float, each: float) -> float:
    return math.inf if not each else (total + 1e-9) // each
