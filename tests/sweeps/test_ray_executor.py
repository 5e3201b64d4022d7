"""Ray's executor refuses in one line what cannot be right, and counts what a node has room for."""

import sys
import time

import pytest
from ranks import free_port

from mixopt.errors import ConfigError, PluginError, RunError
from mixopt.sweeps import Job, Site, make_executor
from mixopt.sweeps.on_ray.ray_cluster import ClusterNode, WorkerNeeds, shortfall
from mixopt.sweeps.on_ray.ray_executor import _bytes
from mixopt.sweeps.on_ray.ray_files import (
    LARGEST_FILE,
    LARGEST_LOG,
    WorkerLog,
    gather_files,
    keep_files,
    keep_log,
)
from mixopt.sweeps.on_ray.ray_store import cache_folder
from mixopt.trials import Training


@pytest.fixture
def make(corpus_path, tmp_path):
    """Make the executor with options."""

    def made(**options):
        job = Job("ngram", {}, corpus_path, Training(1000, device="cpu"))
        return make_executor("ray", options, job, Site(tmp_path / "trials"))

    return made


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
    with (
        pytest.raises(RunError, match="is not an address; give auto, host:port or ray://host"),
        make(address=address),
    ):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(make, scheme):
    pytest.importorskip("ray")
    begun = time.monotonic()
    address = f"{scheme}127.0.0.1:{free_port()}"
    with (
        pytest.raises(RunError, match=f"no cluster can be reached at {address}: .*refused"),
        make(address=address),
    ):
        pass
    assert time.monotonic() - begun < 20


def test_auto_names_what_to_start_where_the_cluster_has_ended(make, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(RunError, match="no cluster can be reached at .*'ray start --head'"), make():
        pass


@pytest.mark.parametrize(
    ("memory", "count"),
    [(None, None), (5, 5), ("5", 5), ("8GB", 8e9), ("1.5 gb", 1.5e9), ("2GiB", 2**31), ("3K", 3e3)],
)
def test_memory_is_bytes_or_text(memory, count):
    assert _bytes(memory) == count


@pytest.mark.parametrize("memory", ["much", "8XB", "-1GB", "", True, 1.5e300])
def test_memory_that_is_none_is_refused(memory):
    with pytest.raises(ConfigError, match=r"sweep\.options\.memory: .*give bytes, or text such as"):
        _bytes(memory)


@pytest.mark.parametrize("cpus", [0, -1, float("nan"), float("inf"), "2"])
def test_cpus_that_are_none_are_refused(make, cpus):
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=r"sweep\.options\.cpus: .*give a number over 0"):
        make(cpus=cpus)


@pytest.mark.parametrize(
    ("needs", "room"),
    [
        (WorkerNeeds(), 8),
        (WorkerNeeds(cpus=3), 2),
        (WorkerNeeds(gpus=1), 2),
        (WorkerNeeds(gpus=2), 1),
        (WorkerNeeds(gpus=0.5), 4),
        (WorkerNeeds(gpus=0.4), 4),  # a worker's part is of one GPU
        (WorkerNeeds(memory=30), 3),
        (WorkerNeeds(gpus=3), 0),
    ],
)
def test_room_on_a_node_is_what_its_scarcest_resource_allows(needs, room):
    assert needs.room({"CPU": 8.0, "GPU": 2.0, "memory": 100.0}) == room


def test_a_part_of_a_gpu_is_a_kind_of_its_own():
    resources = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:H100": 1.0}
    kinds = [WorkerNeeds(gpus=gpus).kind(resources) for gpus in (0, 0.5, 1)]
    assert kinds == ["cpu", "0.5 H100", "H100"]


def test_a_worker_that_fits_no_node_is_told_what_the_largest_has():
    nodes = [
        ClusterNode("a", "n1", {"CPU": 4.0}),
        ClusterNode("b", "n2", {"CPU": 2.0, "GPU": 1.0, "memory": 8e9}),
    ]
    assert str(shortfall(WorkerNeeds(gpus=2), nodes)).startswith(
        "Ray: none of 2 nodes has room for a worker of 1 CPU, 2 GPU; n2 has 2 CPU, 1 GPU and 8 GB."
    )


def test_small_files_of_a_trial_come_back_and_large_ones_stay(tmp_path):
    node, owner = tmp_path / "node", tmp_path / "owner"
    (node / "a" / "logs").mkdir(parents=True)
    (node / "a" / "logs" / "out.txt").write_text("said")
    (node / "a" / "weights.bin").write_bytes(bytes(LARGEST_FILE + 1))
    keep_files(owner, gather_files(node, ["a", "b"]))
    found = [path.relative_to(owner).as_posix() for path in owner.rglob("*") if path.is_file()]
    assert found == ["a/logs/out.txt"]
    assert (owner / "a" / "logs" / "out.txt").read_text() == "said"


def test_of_a_log_only_what_is_new_comes_back(tmp_path):
    log = WorkerLog(tmp_path / "node.log")
    assert log.gather() == ("node.log", b"")
    for text in (b"one\n", b"two\n"):
        with log.path.open("ab") as stream:
            stream.write(text)
        keep_log(tmp_path / "owner", *log.gather())
    assert (tmp_path / "owner" / "node.log").read_bytes() == b"one\ntwo\n"


def test_of_a_long_log_the_end_comes_back(tmp_path):
    log = WorkerLog(tmp_path / "node.log")
    log.path.write_bytes(b"x" * LARGEST_LOG + b"end")
    _, content = log.gather()
    assert (len(content), content[-3:]) == (LARGEST_LOG, b"end")


def test_files_of_a_node_are_not_written_out_of_their_folder(tmp_path):
    with pytest.raises(RunError, match="is outside this folder"):
        keep_files(tmp_path / "files", {"a": {"../../x": b"1"}})


def test_a_cache_is_in_the_nodes_own_variables(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/nvme")
    assert str(cache_folder("$SCRATCH/mixopt")) == "/nvme/mixopt"


def test_a_cache_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = cache_folder(None)
    assert folder.stat().st_mode & 0o077 == 0
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(RunError, match="belongs to another user; set sweep.options.cache"):
        cache_folder(None)
