"""A real cluster of Ray on this machine: a head and nodes with a CPU each, started and killed."""

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path

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

    def __init__(self):
        from ray.cluster_utils import Cluster

        self._count, port = 1, free_port()
        self.client = f"ray://127.0.0.1:{port}"
        head = {"num_cpus": 1, "node_name": "n1", "include_dashboard": False}
        head["ray_client_server_port"] = port
        self.cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        self.address = self.cluster.address
        self.last = self.add()

    def add(self, **resources):
        self._count += 1
        named = {"num_cpus": 1, "node_name": f"n{self._count}"}
        return self.cluster.add_node(**named | resources)

    def kill(self, node):
        """Kill all processes of a node at once, as if its power were cut."""
        below = [
            child
            for started in node.all_processes.values()
            for item in started
            for child in psutil.Process(item.process.pid).children(recursive=True)
        ]
        for child in below:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def ray_nodes():
    """A cluster; the test is skipped where it does not start.

    One at a time on a machine, whatever processes run tests: Ray gives the servers of its clients
    the ports from 23000 on, and a second cluster takes them for its own.

    Nodes take over this process's environment, and nothing is reported to anybody.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # as mixopt has it
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
            break
    else:
        os.close(lock)
        pytest.skip(f"Ray did not start {TRIES} times: {reason[:300]}")
    yield nodes
    import ray

    ray.shutdown()
    nodes.cluster.shutdown()
    os.close(lock)
