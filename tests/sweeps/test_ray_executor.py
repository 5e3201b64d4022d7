"""The Ray executor in this process: its calls to a cluster, and the states it reports."""

import concurrent.futures
import re
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from refusals import refuses

from mixopt.config import SweepConfig
from mixopt.errors import ConfigError, PluginError, RunError
from mixopt.sweeps import Ended, RayExecutor, make_executor, ray_tasks
from mixopt.sweeps.groups import GroupResult, write_result
from mixopt.sweeps.local import Gpu


class RayError(Exception):
    """What Ray raises."""


class OutOfMemoryError(RayError):
    """A worker was ended for memory."""


@pytest.fixture
def ray(monkeypatch):
    """A stand-in for Ray: tasks run one after the other in a thread of this process."""
    pool, ray = concurrent.futures.ThreadPoolExecutor(1), ModuleType("ray")

    def wait(tasks, num_returns, timeout):
        concurrent.futures.wait(tasks, timeout=timeout)
        return [task for task in tasks if task.done()], [task for task in tasks if not task.done()]

    def remote(function):
        submit = SimpleNamespace(remote=lambda *given: pool.submit(function, *given))
        return SimpleNamespace(options=lambda **options: ray.calls.append(options) or submit)

    ray.exceptions = SimpleNamespace(RayError=RayError, OutOfMemoryError=OutOfMemoryError)
    ray.remote, ray.wait, ray.calls, ray.ended = remote, wait, [], []
    ray.get = lambda task, timeout: task.result(timeout)
    ray.cancel = lambda task, force: ray.ended.append(force) or task.cancel()
    ray.is_initialized = lambda: False
    ray.init = lambda **options: ray.calls.append(options)
    ray.shutdown = lambda: ray.ended.append("left")
    ray.cluster_resources = lambda: {"CPU": 8.0, "GPU": 2.0, "memory": 100.0}
    monkeypatch.setitem(sys.modules, "ray", ray)
    yield ray
    pool.shutdown()


@pytest.fixture
def make(tmp_path):
    """Make the executor with options."""
    return lambda gpus=None, workers=None, device="auto", **options: make_executor(
        SweepConfig(executor="ray", options=options, gpus=gpus, workers=workers),
        tmp_path / "trials",
        device,
    )


def test_without_ray_one_line_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refuses(PluginError, r"^executor 'ray' needs Ray: pip install 'mixopt\[ray\]'", make)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("adress", "auto", "unknown option 'adress'; did you mean 'address'"),
        ("memory", "-1GB", "sweep.options.memory: "),
        ("cpus", 0, "sweep.options.cpus: "),
        ("cpus", float("nan"), "sweep.options.cpus: "),
    ],
)
def test_an_option_that_cannot_be_is_refused(make, ray, option, value, message):
    refuses(ConfigError, message, make, **{option: value})


def test_the_page_lists_the_options_that_there_are():
    page = (Path(__file__).parents[2] / "docs" / "ray.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert sorted(listed) == sorted(RayExecutor.__init__.__kwdefaults__)


@pytest.mark.parametrize(
    ("needs", "slots", "resources"),
    [
        ({}, 2, (1.0, 1.0, None)),
        ({"gpus": 0.5}, 4, (1.0, 0.5, None)),
        ({"memory": 60}, 1, (1.0, 1.0, 60.0)),
        ({"device": "cpu"}, 8, (1.0, 0.0, None)),
        ({"workers": 7, "memory": "2GiB"}, 7, (1.0, 1.0, float(2**31))),
    ],
)
def test_as_many_train_as_the_scarcest_resource_allows(make, ray, needs, slots, resources):
    executor = make(**needs)
    assert (executor.slots, executor.queues) == (slots, "workers" not in needs)
    executor.start([])
    connected, task = ray.calls
    assert connected == {"address": "auto", "log_to_driver": False, "configure_logging": False}
    assert task == {
        "max_retries": 0, **dict(zip(("num_cpus", "num_gpus", "memory"), resources, strict=True)),
    }  # fmt: skip


def test_a_worker_that_does_not_fit_is_refused(make, ray):
    with pytest.raises(RunError) as error:
        make(cpus=64, memory=5).start([])
    assert str(error.value) == (
        "Ray: the cluster has no room for a worker of 64 CPU, 5 memory, 1 GPU. Ask for less"
        " (sweep.gpus, sweep.options.cpus and memory), or set sweep.workers to wait for more nodes"
    )


def test_a_cluster_that_cannot_be_reached_is_one_line_and_one_that_is_there_is_used(
    make, ray, monkeypatch
):
    def refuse(**options):
        raise ConnectionError("\n  no route to host\nTraceback")

    ray.init = refuse
    with pytest.raises(RunError) as error:
        make(address="ray://h:1").start([])
    assert str(error.value) == (
        "Ray: no cluster can be reached at ray://h:1: no route to host; start it with 'ray start"
        " --head', or change sweep.options.address: auto, host:port or ray://host:10001"
    )
    ray.init = lambda **options: time.sleep(1)
    monkeypatch.setattr(ray_tasks, "DEADLINE", 0.05)
    refuses(RunError, r"at auto: Ray: no answer in 0\.05 s; start it with", make)
    ray.is_initialized = lambda: True
    executor = make()
    assert executor.slots == 2
    executor.close()
    assert not ray.ended, "it is somebody else's"


def states_of(executor, handles):
    while "waiting" in (states := executor.states(handles)).values():
        time.sleep(0.01)
    return list(states.values())


def test_what_becomes_of_tasks_is_told_from_their_answers(make, ray, monkeypatch, tmp_path):
    answers = {
        "seen": (None, Ended("its result is not visible here", "lost")),
        "died": (Ended("exit code 3"), Ended("exit code 3")),
        "memory": (
            OutOfMemoryError("too much\nof it"),
            Ended("Ray ended the worker for memory: too much", "memory"),
        ),
        "gone": (RayError(), Ended("Ray lost the worker or its node: RayError", "lost")),
    }

    def train(folder, gpus):
        answer = {**answers, "absent": ("/x: not found", None)}[Path(folder).name][0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray_tasks, "train_on_node", train)
    executor = make()
    handles = executor.start([tmp_path / name for name in answers])
    assert handles == [str(tmp_path / name) for name in answers]
    assert states_of(executor, handles) == [expected for _, expected in answers.values()]
    with pytest.raises(RunError, match="^Ray: /x: not found$"):
        states_of(executor, executor.start([tmp_path / "absent"]))
    monkeypatch.setattr(ray, "wait", lambda *_, **__: ray.get(handles, 1))
    ray.get = lambda *_: (_ for _ in ()).throw(RayError("down"))
    refuses(RunError, "no longer be reached: down; run the sweep again$", executor.states, handles)


def test_tasks_are_ended_by_force_and_the_cluster_is_left(make, ray, monkeypatch, tmp_path):
    over = concurrent.futures.Future()
    monkeypatch.setattr(ray_tasks, "train_on_node", lambda folder, gpus: over.result())
    executor = make()
    handles = executor.start([tmp_path / "a", tmp_path / "b"])
    executor.cancel(handles)
    assert ray.ended == [True, True]
    over.set_result(None)
    executor.close()
    assert ray.ended[-1] == "left"


class NodeWorker:
    """In place of a process: what it does with a folder, and whether it was killed."""

    def __init__(self, device):
        self.device, self.ended, self.is_free, self.killed = device, None, False, 0

    def begin(self, folder):
        if folder.name == "result":
            write_result(folder, GroupResult())
            self.is_free = True
        if folder.name == "died":
            self.ended = Ended("exit code 3")
        if folder.name == "stopped":
            folder.rmdir()
            self.is_free = True

    def kill(self):
        self.killed += 1


@pytest.mark.parametrize(
    ("name", "answer", "killed"),
    [
        ("result", None, 0),
        ("died", Ended("exit code 3"), 1),
        ("stopped", Ended("the group was stopped by its owner", "lost"), 1),
    ],
)
def test_a_task_has_its_folder_trained_by_a_worker_that_stays(
    tmp_path, monkeypatch, name, answer, killed
):
    workers = {}
    monkeypatch.setattr(ray_tasks, "Worker", NodeWorker)
    monkeypatch.setattr(ray_tasks, "_WORKERS", workers)
    monkeypatch.setattr(ray_tasks, "find_gpus", lambda: [Gpu("3", "L4")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    for gpus in (0, 0.5, 0.5):
        (tmp_path / name).mkdir(exist_ok=True)
        assert ray_tasks.train_on_node(str(tmp_path / name), gpus) == answer
    places = [(w.device.visible, w.device.kind, w.device.gpus) for w in workers.values()]
    assert places == [(None, "cpu", 0), ("3", "L4", 0.5)]
    assert [worker.killed for worker in workers.values()] == [killed, 2 * killed]


def test_a_node_that_does_not_see_the_folder_says_what_to_do(tmp_path):
    said = ray_tasks.train_on_node(str(tmp_path / "absent"), 0)
    assert said.startswith(f"{tmp_path}/absent: not found on ")
    assert said.endswith("; use an --out folder that all nodes share")
