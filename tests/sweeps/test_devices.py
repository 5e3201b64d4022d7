"""What a worker computes on: GPUs as torch sees them, MIG instances by name, cores otherwise.

This machine has no GPU, so that a package `torch` on the path says what there is.
"""

import json
import os
import stat
import sys

import pytest

from mixopt.errors import ConfigError
from mixopt.sweeps import worker_devices
from mixopt.sweeps.devices import MAX_SECONDS, find_gpus

A100, H100 = "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3"
FIRST = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"
SECOND = "GPU-fb4e92d5-7b4e-4c6a-9a54-91d2ed1fbc9d"
SMALL = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"
LARGE = "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"
MIG_LISTING = f"""\
GPU 0: {A100} (UUID: {FIRST})
  MIG 3g.20gb     Device  0: (UUID: {LARGE})
  MIG 1g.5gb      Device  1: (UUID: {SMALL})
GPU 1: {H100} (UUID: {SECOND})
"""
PLAIN_LISTING = f"GPU 0: {A100} (UUID: {FIRST})\nGPU 1: {H100} (UUID: {SECOND})\n"

TORCH = """
import os
class version:
    cuda, hip = {cuda}, {hip}
class _Properties:
    def __init__(self, uuid):
        self.uuid = uuid
class cuda:
    names = {names}
    uuids = {uuids}
    def is_available():
        return bool(cuda.names)
    def device_count():
        return len(cuda.names)
    def get_device_name(number):
        return cuda.names[number]
    def get_device_properties(number):
        return _Properties(cuda.uuids[number])
{more}
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this look like a machine with GPUs: what torch sees, and what nvidia-smi lists."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def set_up(names=(), *, uuids=None, hip=None, listing=None, more="", **variables):
        package = tmp_path / "path" / "torch"
        package.mkdir(parents=True)
        given = list(uuids or [""] * len(names))
        text = TORCH.format(
            cuda=None if hip else "'13.0'", hip=repr(hip), names=list(names), uuids=given, more=more
        )
        (package / "__init__.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        tool = tools / ("rocm-smi" if hip else "nvidia-smi")
        tool.write_text(f"#!/bin/sh\ncat <<'END'\n{listing or ''}END\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_up


def shown(devices):
    return [(device.visible, device.kind) for device in devices]


def test_each_gpu_has_one_worker_and_the_kind_is_its_name(machine):
    machine([A100, H100], listing=PLAIN_LISTING)
    devices = worker_devices("auto", None)
    assert shown(devices) == [("0", A100), ("1", H100)]
    assert [device.place.gpus for device in devices] == [1.0, 1.0]
    assert devices[1].environment()["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_machine_without_nvidia_smi_has_its_gpus_found(machine, monkeypatch):
    machine([A100], CUDA_VISIBLE_DEVICES="0")
    monkeypatch.setenv("PATH", "/nowhere")
    assert shown(worker_devices("auto", None)) == [("0", A100)]


def test_only_gpus_that_the_variable_names_are_used_under_the_names_that_it_has(machine):
    machine([A100, H100], CUDA_VISIBLE_DEVICES=f"3,{SECOND}")
    assert shown(worker_devices("auto", None)) == [("3", A100), (SECOND, H100)]


@pytest.mark.parametrize("value", ["", "-1", "-1,0"])
def test_a_variable_that_names_none_leaves_cores(machine, value):
    machine([A100], CUDA_VISIBLE_DEVICES=value, more="raise SystemExit('torch was asked')")
    said = []
    assert shown(worker_devices("auto", 2, say=said.append)) == [(None, "cpu")] * 2
    assert said == []


def test_names_after_one_that_cuda_does_not_take_are_passed_over(machine):
    machine([A100], CUDA_VISIBLE_DEVICES="1,-1,0")
    assert shown(worker_devices("auto", None)) == [("1", A100)]


def test_each_mig_instance_is_a_device_by_its_name_and_kind(machine):
    machine([f"{A100} MIG 3g.20gb"], listing=MIG_LISTING)
    assert shown(worker_devices("auto", None)) == [
        (LARGE, f"{A100} MIG 3g.20gb"),
        (SMALL, f"{A100} MIG 1g.5gb"),
        (SECOND, H100),
    ]


def test_instances_that_the_variable_names_are_used_and_no_others(machine):
    names = [f"{A100} MIG 1g.5gb"]  # CUDA shows the first alone
    machine(names, listing=MIG_LISTING, CUDA_VISIBLE_DEVICES=f"{SMALL},{LARGE}")
    assert shown(worker_devices("auto", None)) == [
        (SMALL, f"{A100} MIG 1g.5gb"),
        (LARGE, f"{A100} MIG 3g.20gb"),
    ]


def test_a_number_of_a_gpu_that_is_cut_stands_for_its_instances(machine):
    names = [f"{A100} MIG 3g.20gb"]
    machine(names, listing=MIG_LISTING, uuids=[LARGE[4:]], CUDA_VISIBLE_DEVICES="0")
    assert [device.visible for device in worker_devices("auto", None)] == [LARGE, SMALL]


def test_torchs_order_of_gpus_counts_where_it_is_not_that_of_the_listing(machine):
    machine([H100], listing=MIG_LISTING, uuids=[SECOND[4:]], CUDA_VISIBLE_DEVICES="0")
    assert shown(worker_devices("auto", None)) == [("0", H100)]


def test_instances_that_nothing_lists_are_taken_as_the_variable_has_them(machine):
    machine([f"{A100} MIG 1g.5gb"], CUDA_VISIBLE_DEVICES=f"{SMALL},{LARGE}")
    assert shown(worker_devices("auto", None)) == [
        (SMALL, f"{A100} MIG 1g.5gb"),
        (LARGE, f"{A100} MIG 1g.5gb"),
    ]


def test_under_rocm_its_own_variable_shows_a_worker_its_gpu(machine):
    machine(["AMD Instinct MI300X"] * 2, hip="7.0", ROCR_VISIBLE_DEVICES="4,5")
    devices = worker_devices("auto", None)
    assert [device.visible for device in devices] == ["0", "1"]
    environment = devices[1].environment()
    assert environment["HIP_VISIBLE_DEVICES"] == "1"
    assert environment["ROCR_VISIBLE_DEVICES"] == "4,5"
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_under_rocm_the_names_of_its_variable_are_respected(machine):
    machine(["AMD Instinct MI300X"] * 2, hip="7.0", HIP_VISIBLE_DEVICES="2,6")
    assert [device.visible for device in worker_devices("auto", None)] == ["2", "6"]


def test_a_worker_may_have_several_gpus_and_what_is_over_is_not_used(machine):
    machine([A100] * 5)
    devices = worker_devices("auto", None, 2)
    assert shown(devices) == [("0,1", A100), ("2,3", A100)]
    assert [device.place.gpus for device in devices] == [2.0, 2.0]
    assert str(devices[0]) == f"2 x {A100}"


def test_more_workers_than_gpus_share_them_in_turn_and_a_line_says_so(machine):
    machine([A100, H100])
    said = []
    devices = worker_devices("auto", 4, say=said.append)
    assert [device.visible for device in devices] == ["0", "1", "0", "1"]
    assert said == ["sweep.workers: 4 workers share 2 GPUs"]
    assert sum(device.place.gpus for device in devices) == 2.0


def test_a_share_of_a_gpu_lets_so_many_workers_have_it(machine):
    machine([A100])
    devices = worker_devices("auto", None, 0.25)
    assert [device.visible for device in devices] == ["0"] * 4
    assert devices[0].place.gpus == 0.25


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        (3, "sweep.gpus: 3 for each worker, but this process sees 2 GPUs; lower it, or look at"),
        (1.5, "sweep.gpus: 1.5: must be a whole number of GPUs, or a share below 1"),
    ],
)
def test_more_gpus_than_there_are_is_a_mistake(machine, gpus, message):
    machine([A100, H100])
    with pytest.raises(ConfigError) as caught:
        worker_devices("auto", None, gpus)
    assert str(caught.value).startswith(message)


def test_two_mig_instances_for_a_worker_are_a_mistake(machine):
    machine([f"{A100} MIG 3g.20gb"], listing=MIG_LISTING)
    with pytest.raises(ConfigError, match="a process can use only one MIG instance; leave it out"):
        worker_devices("auto", None, 2)


def test_one_gpu_can_be_named(machine):
    machine([A100, H100])
    assert shown(worker_devices("cuda:1", None)) == [("1", H100)]


def test_a_cpu_is_what_was_asked_for(machine):
    machine([A100], more="raise SystemExit('torch was asked')")
    said = []
    assert shown(worker_devices("cpu", 3, say=said.append)) == [(None, "cpu")] * 3
    assert said == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("raise ImportError('no driver')", "torch is not installed here"),
        ("os._exit(9)", "torch ended with exit code 9"),
        ("os.kill(os.getpid(), 11)", "torch ended with exit code -11"),
        ("cuda.names = [7]", "torch's answer"),
        ("print('{'); os.dup2(1, 9); os._exit(0)", "torch's answer"),
    ],
)
def test_where_torch_cannot_be_asked_a_core_each_is_left_and_a_line_says_why(machine, more, reason):
    machine([A100], more=more)
    said = []
    assert shown(worker_devices("auto", 2, say=said.append)) == [(None, "cpu")] * 2
    assert len(said) == 1
    assert said[0].startswith(reason)
    assert said[0].endswith("so it finds no GPU; the workers have a core each")


def test_a_torch_that_hangs_is_not_waited_for_long(machine, monkeypatch):
    assert MAX_SECONDS <= 60
    machine([A100], more="import time; time.sleep(600)")
    monkeypatch.setattr("mixopt.sweeps.devices.MAX_SECONDS", 0.5)
    said = []
    assert shown(worker_devices("auto", 1, say=said.append)) == [(None, "cpu")]
    assert said[0].startswith("torch did not answer within 0.5 s, ")


def test_without_torch_the_gpus_that_nvidia_smi_lists_are_used(machine):
    machine(listing=PLAIN_LISTING, more="raise ImportError")
    said = []
    assert shown(worker_devices("auto", None, say=said.append)) == [(FIRST, A100), (SECOND, H100)]
    assert said[0].endswith("nvidia-smi lists 2 GPUs")


def test_gpus_that_torch_cannot_use_are_for_those_who_ask(machine):
    machine([], listing=PLAIN_LISTING)
    assert shown(worker_devices("auto", 1)) == [(None, "cpu")]
    assert shown(worker_devices("auto", None, 1)) == [(FIRST, A100), (SECOND, H100)]


def test_torch_is_asked_once(machine, tmp_path):
    log = tmp_path / "asked"
    machine([A100], more=f"open({str(log)!r}, 'a').write('asked ')")
    assert find_gpus() == find_gpus()
    assert log.read_text() == "asked "


def test_a_machine_without_any_sign_of_a_gpu_does_not_import_torch(machine, monkeypatch):
    machine([A100], more="raise SystemExit('torch was asked')")
    monkeypatch.setattr("mixopt.sweeps.devices.TOOLS", ())
    monkeypatch.setattr("mixopt.sweeps.devices.DEVICE_FILES", ())
    monkeypatch.setattr(sys, "platform", "linux")
    assert find_gpus().gpus == ()


def test_a_name_that_steers_a_terminal_is_shown_plainly(machine):
    machine(["\x1b[2Jmine" + "x" * 200])
    (device,) = worker_devices("auto", None)
    assert device.kind.isprintable()
    assert len(device.kind) == 80
    assert json.dumps(device.kind)
