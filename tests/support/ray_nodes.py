"""A real cluster of Ray on this machine: a head and nodes with a CPU each, started and killed."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ranks import free_port

# Ray's own: files that it leaves to the collector.
QUIET = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TRIES = 3  # on a loaded machine Ray gives its own processes up while they start


class RayNodes:
    """The nodes n1, which is the head, and n2; more can be added, and killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._count = 1
        self.lock: int | None = None
        self.client = f"ray://127.0.0.1:{free_port()}"
        port = int(self.client.rpartition(":")[2])
        head = {**self._named("n1"), "include_dashboard": False, "ray_client_server_port": port}
        self._cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        self.address = self._cluster.address
        self.last = self.add()

    def add(self, **resources: Any) -> Any:
        """Add a node, n2 first."""
        self._count += 1
        named = self._named(f"n{self._count}")
        return self._cluster.add_node(**{**named, **resources})

    def kill(self, node: Any) -> None:
        """Kill all processes of a node at once, as if its power were cut."""
        below = [
            child
            for started in node.all_processes.values()
            for one in started
            for child in psutil.Process(one.process.pid).children(recursive=True)
        ]
        for child in below:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        """End all."""
        self._cluster.shutdown()

    def _named(self, name: str) -> dict[str, Any]:
        return {"num_cpus": 1, "node_name": name}


def started() -> RayNodes:
    """Start a cluster; skip the test where that does not work.

    One at a time on a machine, whatever processes run tests: Ray gives the servers of its clients
    the ports from 23000 on, and a second cluster takes them for its own.

    Nodes take over this process's environment, and nothing is reported to anybody.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # as mixopt has it
    support = str(Path(__file__).parent)
    if support not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = support
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mixopt[ray]'")
    place = Path(tempfile.gettempdir(), "mixopt-test-ray.lock")
    reason, lock = "", os.open(place, os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for _ in range(TRIES):
        try:
            nodes = RayNodes()
        except Exception as error:  # whatever Ray raises where its processes do not start
            reason = f"{type(error).__name__}: {error}"
        else:
            nodes.lock = lock
            return nodes
    os.close(lock)
    pytest.skip(f"Ray did not start {TRIES} times: {reason[:300]}")


def ended(nodes: RayNodes) -> None:
    """End a cluster, and what it has written."""
    import ray

    ray.shutdown()
    nodes.end()
    if nodes.lock is not None:
        os.close(nodes.lock)
