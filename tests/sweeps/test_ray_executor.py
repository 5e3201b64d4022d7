"""Ray's executor refuses in one line what cannot be right, and counts what a node has room for."""

import re
import socket
import subprocess
import sys
import time

import pytest
from ranks import free_port

from mixopt.errors import ConfigError, PluginError, RunError
from mixopt.sweeps import Site, make_executor
from mixopt.sweeps.ray_tasks import device_kind, memory_bytes


@pytest.fixture
def make(tmp_path):
    """Make the executor with options."""
    return lambda gpus=None, **options: make_executor(
        "ray", options, Site(tmp_path / "trials", device="cpu", gpus=gpus)
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


@pytest.mark.parametrize("address", ["ray://", "here", "host:", ":10001", "host:ray"])
def test_what_is_no_address_is_refused(make, address):
    pytest.importorskip("ray")
    with pytest.raises(RunError, match="is not an address; give auto, host:port or ray://host"):
        assert make(address=address).slots


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(make, scheme):
    pytest.importorskip("ray")
    begun = time.monotonic()
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(RunError, match=f"no cluster can be reached at {address}: .*refused"):
        assert make(address=address).slots
    assert time.monotonic() - begun < 20


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


@pytest.mark.parametrize(
    ("memory", "count"),
    [(None, None), (5, 5), ("5", 5), ("8GB", 8e9), ("1.5 gb", 1.5e9), ("2GiB", 2**31), ("3K", 3e3)],
)
def test_memory_is_bytes_or_text(memory, count):
    assert memory_bytes(memory) == count


@pytest.mark.parametrize("memory", ["much", "8XB", "-1GB", "", True, 1.5e300])
def test_memory_that_is_none_is_refused(memory):
    with pytest.raises(ConfigError, match=r"sweep\.options\.memory: .*give bytes, or text such as"):
        memory_bytes(memory)


@pytest.mark.parametrize("cpus", [0, -1, float("nan"), float("inf"), "2"])
def test_cpus_that_are_none_are_refused(make, cpus):
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=r"sweep\.options\.cpus: .*give a number over 0"):
        make(cpus=cpus)


@pytest.mark.parametrize(
    ("needs", "room"),
    [
        ({}, 8),
        ({"cpus": 3}, 2),
        ({"gpus": 1}, 2),
        ({"gpus": 2}, 1),
        ({"gpus": 0.5}, 4),
        ({"gpus": 0.4}, 4),  # a worker's part is of one GPU
        ({"memory": 30}, 3),
        ({"gpus": 3}, 0),
    ],
)
def test_room_on_a_node_is_what_its_scarcest_resource_allows(make, needs, room):
    pytest.importorskip("ray")
    executor = make(**needs)
    executor._gpus = needs.get("gpus", 0)
    assert executor._room({"CPU": 8.0, "GPU": 2.0, "memory": 100.0}) == room


def test_a_part_of_a_gpu_is_a_kind_of_its_own():
    resources = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:H100": 1.0}
    assert [device_kind(resources, gpus) for gpus in (0, 0.5, 1)] == ["cpu", "0.5 H100", "H100"]


def test_a_worker_that_fits_no_node_is_told_what_the_largest_has(make):
    pytest.importorskip("ray")
    nodes = [
        {"NodeName": "n1", "Resources": {"CPU": 4.0}},
        {"NodeName": "n2", "Resources": {"CPU": 2.0, "GPU": 1.0, "memory": 8e9}},
    ]
    executor = make()
    executor._gpus = 2.0
    assert str(executor._shortfall(nodes)).startswith(
        "Ray: none of 2 nodes has room for a worker of 1 CPU, 2 GPU; n2 has 2 CPU, 1 GPU, 8 GB."
    )
