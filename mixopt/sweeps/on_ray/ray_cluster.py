"""A cluster of Ray: how it is reached, and which of its nodes have room for a worker."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mixopt.errors import PluginError, RunError

NAMESPACE = "mixopt"
KNOCK = 5.0  # seconds for a connection; Ray itself waits minutes where nothing listens
_ACCELERATOR = "accelerator_type:"
HEAD = "node:__internal_head__"


@dataclass(frozen=True)
class WorkerNeeds:
    """What one worker takes of a node.

    Attributes:
        cpus: CPUs.
        gpus: GPUs, or a part of one.
        memory: Bytes; not counted when None.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None

    def options(self) -> dict[str, Any]:
        """Return what an actor of Ray is told."""
        told: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        return told if self.memory is None else {**told, "memory": self.memory}

    def room(self, resources: Mapping[str, float]) -> int:
        """Return how many workers fit on a node that has these resources to itself."""
        counts = [_times(resources.get("CPU", 0.0), self.cpus)]
        if 0 < self.gpus < 1:
            # A worker's part is of one GPU.
            counts.append(int(resources.get("GPU", 0.0)) * _times(1.0, self.gpus))
        else:
            counts.append(_times(resources.get("GPU", 0.0), self.gpus))
        counts.append(_times(resources.get("memory", 0.0), self.memory or 0))
        return int(min(counts)) if min(counts) < math.inf else 1

    def kind(self, resources: Mapping[str, float]) -> str:
        """Return the kind of device that a worker has on a node; a part of a GPU is its own."""
        if not self.gpus:
            return "cpu"
        names = (key.removeprefix(_ACCELERATOR) for key in resources if _ACCELERATOR in key)
        name = next(names, "gpu")
        return name if self.gpus == 1 else f"{self.gpus:g} {name}"

    def __str__(self) -> str:
        """Say it in words."""
        memory = "" if self.memory is None else f" and {self.memory / 1e9:g} GB"
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}{memory}"


@dataclass(frozen=True)
class ClusterNode:
    """A node that is alive.

    Attributes:
        key: What Ray calls it.
        name: What people call it.
        resources: What it has in all.
    """

    key: str
    name: str
    resources: Mapping[str, float]


def cluster_nodes() -> list[ClusterNode]:
    """Return the nodes that are alive, the head first."""
    import ray

    found = [
        ClusterNode(node["NodeID"], _name(node), node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: HEAD not in node.resources)


def import_ray() -> Any:
    """Return the module of Ray.

    Under `uv run` Ray would have each process on each node started by uv again, on a copy of the
    working directory, and wait without a word where nodes have no uv. Nodes have mixopt installed;
    who wants Ray's way sets the variable to 1.

    Raises:
        PluginError: It is not installed.
    """
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise PluginError("executor 'ray' needs Ray: pip install 'mixopt[ray]'") from error
    return ray


def connect(address: str) -> bool:
    """Connect this process to a cluster, unless it is connected.

    Args:
        address: `auto`, `host:port`, or `ray://host:port`.

    Returns:
        Whether it was connected here, and is to be disconnected.

    Raises:
        RunError: None is reached.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    found = _found() if address == "auto" else address
    _knock(found)
    # A client may say no more than this.
    quiet = {} if found.startswith("ray://") else {"configure_logging": False}
    try:
        ray.init(address=found, namespace=NAMESPACE, log_to_driver=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise _unreached(found, one_line(error)) from error
    return True


def one_line(error: BaseException) -> str:
    """Return the first line of an error of Ray's; a traceback follows it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def shortfall(needs: WorkerNeeds, nodes: Sequence[ClusterNode]) -> RunError:
    """Return what is said where no node has room for a worker."""
    largest = max(nodes, key=lambda node: needs.gpus and node.resources.get("GPU", 0.0))
    found = WorkerNeeds(
        largest.resources.get("CPU", 0.0),
        largest.resources.get("GPU", 0.0),
        int(largest.resources.get("memory", 0.0)),
    )
    return RunError(
        f"Ray: none of {len(nodes)} nodes has room for a worker of {needs}; {largest.name} has "
        f"{found}. Ask for less (sweep.gpus, sweep.options.cpus and memory), or set sweep.workers "
        "to wait for more nodes"
    )


def _found() -> str:
    """Return the address of the cluster that this machine belongs to."""
    # `ray.init` would find it by the same function, and then wait for minutes if it has ended.
    from ray._private.services import canonicalize_bootstrap_address

    with suppress(ConnectionError, ValueError, OSError):
        address = canonicalize_bootstrap_address("auto")
        if address is not None:
            return str(address)
    raise RunError(
        "Ray: no cluster is running here; start one with 'ray start --head', or give its address "
        "by sweep.options.address: host:port or ray://host:port"
    )


def _knock(address: str) -> None:
    """Check that something listens.

    Raises:
        RunError: Nothing does, or it is no address.
    """
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


def _name(node: Mapping[str, Any]) -> str:
    name, address = node.get("NodeName"), node.get("NodeManagerAddress")
    return str(name if name and name != address else node.get("NodeManagerHostname") or address)


def _times(total: float, each: float) -> float:
    return math.inf if not each else (total + 1e-9) // each
