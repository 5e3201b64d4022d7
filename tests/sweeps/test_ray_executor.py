"""Ray's executor refuses in one line what cannot be right, and counts what a node has room for."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mixopt.config import SweepConfig
from mixopt.errors import ConfigError, PluginError, RunError
from mixopt.sweeps import RayExecutor, make_executor, ray_tasks


@pytest.fixture
def make(tmp_path):
    """Make the executor with options."""
    return lambda gpus=None, **options: make_executor(
        SweepConfig(executor="ray", options=options, gpus=gpus), tmp_path / "trials"
    )


def test_without_ray_one_line_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        PluginError, match=r"^executor 'ray' needs Ray: pip install 'mixopt\[ray\]'"
    ):
        make()


def test_an_unknown_option_is_refused_with_the_nearest(make):
    with pytest.raises(ConfigError, match="unknown option 'adress'; did you mean 'address'"):
        make(adress="auto")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_that_listens_and_says_nothing_is_waited_for_until_the_deadline(scheme):
    """In a process of its own: what is left of the call would disturb a later cluster's."""
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        script = f"""if True:
            import os
            from mixopt.errors import RunError
            from mixopt.sweeps import ray_tasks
            ray_tasks.DEADLINE = 1.0
            try:
                ray_tasks.connect({address!r})
            except RunError as error:
                print(error, flush=True)
            os._exit(0)
        """
        said = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    assert re.match(r"Ray: (no answer in 1 s|no cluster can be reached)", said)


@pytest.mark.parametrize(("memory", "count"), [(5, 5), ("2GiB", 2**31)])
def test_memory_is_bytes_or_text(make, memory, count):
    pytest.importorskip("ray")
    assert make(memory=memory)._needs["memory"] == count


@pytest.mark.parametrize(
    ("option", "value"),
    [("memory", "8XB"), ("memory", "-1GB"), ("cpus", 0), ("cpus", float("nan"))],
)
def test_an_amount_that_is_none_is_refused(make, option, value):
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=rf"sweep\.options\.{option}: "):
        make(**{option: value})


def test_the_page_lists_the_options_that_there_are():
    page = (Path(__file__).parents[2] / "docs" / "ray.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert sorted(listed) == sorted(RayExecutor.__init__.__kwdefaults__)


@pytest.fixture
def cluster(monkeypatch):
    """A cluster that has some resources."""
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray_tasks, "connect", lambda address: False)
    resources = {"CPU": 8.0, "GPU": 2.0, "memory": 100.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)


@pytest.mark.parametrize(("needs", "slots"), [({}, 2), ({"gpus": 0.5}, 4), ({"memory": 60}, 1)])
def test_as_many_train_as_the_scarcest_resource_allows(make, cluster, needs, slots):
    assert make(**needs).slots == slots


def test_a_worker_that_does_not_fit_is_refused(make, cluster):
    with pytest.raises(RunError, match="the cluster has no room for a worker of 64 CPU, 1 GPU. As"):
        assert make(cpus=64).slots
