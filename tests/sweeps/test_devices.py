"""Devices of workers: GPUs as torch lists them, cores otherwise.

This machine has no GPU, so that a package `torch` on the path says what there is.
"""

import json

import pytest

from mixopt.errors import ConfigError
from mixopt.sweeps import local, worker_devices

A100, H100 = "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3"
TORCH = """
import os
class cuda:
    names = {names}
    def device_count():
        return len(cuda.names)
    def get_device_name(number):
        return cuda.names[number]
{more}
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this look like a machine with GPUs, of which torch sees some."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "DEVICE_FILES", ("/dev/null",))

    def set_up(names=(), *, more="", visible=None):
        package = tmp_path / "path" / "torch"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(TORCH.format(names=list(names), more=more))
        monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=":")
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return set_up


def shown(devices):
    return [(device.visible, device.kind, device.gpus) for device in devices]


CORES = [(None, "cpu", 0.0)] * 2


def test_each_gpu_has_one_worker_which_sees_it_alone(machine):
    machine([A100, H100])
    devices = worker_devices("auto", None)
    assert shown(devices) == [("0", A100, 1.0), ("1", H100, 1.0)]
    environment = devices[1].environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert json.loads(environment["MIXOPT_PLACE"]) == {"kind": H100, "gpus": 1.0}
    assert worker_devices("cpu", 1)[0].environment["OMP_NUM_THREADS"] == "1"


def test_more_workers_than_gpus_share_them_in_turn_and_a_line_says_so(machine):
    machine([A100, H100])
    said = []
    devices = worker_devices("auto", 4, say=said.append)
    assert [device.visible for device in devices] == ["0", "1", "0", "1"]
    assert said == ["sweep.workers: 4 workers share 2 GPUs"]
    assert sum(device.gpus for device in devices) == 2.0


NAMED = [("3", A100, 1.0), ("GPU-fb4e92d5", H100, 1.0)]


@pytest.mark.parametrize(
    ("names", "options", "visible", "expected"),
    [
        ([A100, H100], ("auto", None), "3, GPU-fb4e92d5", NAMED),
        ([A100], ("auto", None), "1,-1,0", [("1", A100, 1.0)]),
        ([A100] * 5, ("auto", None, 2), None, [("0,1", A100, 2.0), ("2,3", A100, 2.0)]),
        ([A100], ("auto", None, 0.25), None, [("0", A100, 0.25)] * 4),
        ([A100, H100], ("cuda:1", None), None, [("1", H100, 1.0)]),
    ],
    ids=["named", "not taken by CUDA", "several a worker", "shared", "one"],
)
def test_gpus_are_dealt_to_workers_as_asked(machine, names, options, visible, expected):
    machine(names, visible=visible)
    assert shown(worker_devices(*options)) == expected


@pytest.mark.parametrize(
    ("names", "gpus", "message"),
    [
        ([A100] * 2, 3, "3 for each worker, but this process sees 2 GPUs; lower it, or look at"),
        ([A100] * 2, 1.5, "1.5: must be a whole number of GPUs, or a share below 1"),
        ([], 1, "1 for each worker, but this process sees 0"),
    ],
)
def test_more_gpus_than_there_are_is_a_mistake(machine, names, gpus, message):
    machine(names)
    with pytest.raises(ConfigError, match=f"^sweep.gpus: {message}"):
        worker_devices("auto", None, gpus)
    assert shown(worker_devices("cpu", 2, gpus)) == CORES


@pytest.mark.parametrize(
    ("device", "visible", "files"),
    [("cpu", None, ("/dev/null",)), ("auto", "", ("/dev/null",)), ("auto", None, ())],
)
def test_torch_is_not_started_on_a_machine_without_gpus(
    machine, monkeypatch, device, visible, files
):
    machine([A100], more="raise SystemExit('torch was asked')", visible=visible)
    monkeypatch.setattr(local, "DEVICE_FILES", files)
    said = []
    assert shown(worker_devices(device, 2, say=said.append)) == CORES
    assert said == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("raise ImportError('no driver')", "torch ended with exit code 1: ImportError: no driver"),
        ("import time; time.sleep(600)", "torch did not answer within 2 s"),
    ],
)
def test_without_an_answer_from_torch_each_worker_gets_a_core_and_a_line_says_why(
    machine, monkeypatch, more, reason
):
    machine([A100], more=more)
    monkeypatch.setattr(local, "MAX_SECONDS", 2.0)
    said = []
    assert shown(worker_devices("auto", 2, say=said.append)) == CORES
    assert len(said) == 1
    assert said[0].startswith(reason)
    assert said[0].endswith("so it finds no GPU; the workers have a core each")
