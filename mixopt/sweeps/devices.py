"""The devices of workers: a core, or GPUs that are visible to that worker alone.

GPUs are found by asking torch in a process of its own: a process that has asked a GPU anything
holds memory of it. It is asked only where a GPU may be: there is a device file, a vendor's tool, or
a variable that names one. Of a GPU that is cut into MIG instances CUDA shows the first alone, so
that `nvidia-smi -L` is asked for the names of all of them. Under ROCm, `HIP_VISIBLE_DEVICES`
chooses among what `ROCR_VISIBLE_DEVICES` leaves.

    GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
    MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mixopt.errors import ConfigError, MixoptError, plain_line
from mixopt.sweeps.contract import Place
from mixopt.system import Say, checked_as, parse_json, silent, usable_cores

PLACE = "MIXOPT_PLACE"  # the variable that says to a worker where it is
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
CUDA = "CUDA_VISIBLE_DEVICES"
TOOL = "nvidia-smi"
TOOL_SECONDS = 10.0  # it hangs with its driver
MAX_NAME = 80  # characters

_GPU_LINE = re.compile(r"GPU (\d+): (.+?) \(UUID: (GPU-[0-9a-fA-F-]+)\)")
_MIG_LINE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[\w/-]+)\)")
HIP, ROCR = "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
MAX_SECONDS = 60.0  # seconds for torch to be imported and to answer
# NVIDIA's, that of Windows below Linux, AMD's.
DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")
TOOLS = (TOOL, "rocm-smi")

_ASK = """
import json, sys
try:
    import torch
except ImportError:
    found = {"torch": False}
else:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {
        "hip": bool(getattr(torch.version, "hip", None)),
        "names": [torch.cuda.get_device_name(number) for number in range(count)],
        "uuids": [str(getattr(torch.cuda.get_device_properties(number), "uuid", ""))
                  for number in range(count)],
    }
sys.stdout.write("\\n" + json.dumps(found) + "\\n")
"""
_NO_TORCH = "torch is not installed here"


@dataclass(frozen=True)
class WorkerDevice:
    """What one worker has.

    Attributes:
        visible: Its GPUs, as `variable` names them; None for a core.
        kind: The GPUs' name, or `cpu`.
        variable: The variable that shows them to it, and no others.
        share: Of each of its GPUs, where workers share them.
    """

    visible: str | None = None
    kind: str = "cpu"
    variable: str = CUDA
    share: float = 1.0

    @property
    def gpus(self) -> int:
        """How many GPUs it has, or has a share of."""
        return 0 if self.visible is None else len(self.visible.split(","))

    @property
    def place(self) -> Place:
        """Where a group that trains on it is."""
        return Place(kind=self.kind, gpus=self.gpus * self.share)

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that has this device and no other."""
        if self.visible is None:
            return os.environ | dict.fromkeys(ONE_THREAD, "1")
        # ROCm takes CUDA's variable too, where its own is absent.
        others = {name: value for name, value in os.environ.items() if name != CUDA}
        return others | {self.variable: self.visible}

    def __str__(self) -> str:
        """Say what it is: `cpu`, or the GPUs' name with how many there are."""
        return self.kind if self.gpus < 2 else f"{self.gpus} x {self.kind}"


def worker_devices(
    device: str, workers: int | None, gpus: float | None = None, say: Say = silent
) -> list[WorkerDevice]:
    """Return what each worker computes on."""
    found = [] if device == "cpu" else _usable(gpus is not None, say)
    if device.startswith("cuda:"):
        found = found[int(device.removeprefix("cuda:")) :][:1]
    if not found:
        return [WorkerDevice()] * (workers or usable_cores())
    sets = _sets(found, gpus or 1.0)
    count = workers or len(sets)
    if workers is not None and workers > len(sets):
        say(f"sweep.workers: {workers} workers share {_count(len(found))}")
    share = min(1.0, gpus or 1.0) * min(1.0, len(sets) / count)
    return [_device(sets[place % len(sets)], share) for place in range(count)]


def place_here(device: str) -> Place:
    """Return the place of a process that has all GPUs which it sees, as a scheduler gives them."""
    gpus = () if device == "cpu" else find_gpus().gpus
    kinds = " + ".join(dict.fromkeys(gpu.kind for gpu in gpus))
    return Place(kind=kinds or "cpu", gpus=float(len(gpus)))


def _usable(asked: bool, say: Say) -> list[Gpu]:
    """Return the GPUs; where they are asked for, also those that torch does not see."""
    found = find_gpus()
    gpus = list(found.gpus)
    if found.fault:
        then = f"nvidia-smi lists {_count(len(gpus))}" if gpus else "the workers have a core each"
        say(f"{found.fault}, so it finds no GPU; {then}")
    return gpus or (list(listed_gpus()) if asked else [])


def _sets(found: Sequence[Gpu], each: float) -> list[Sequence[Gpu]]:
    """Return the GPUs of each worker: a set of several, or one that several workers have."""
    if each < 1:
        return [[gpu] for gpu in found for _ in range(max(1, int(1 / each + 1e-9)))]
    if each != int(each):
        raise ConfigError(
            f"sweep.gpus: {each:g}: must be a whole number of GPUs, or a share below 1"
        )
    if each > len(found):
        raise ConfigError(
            f"sweep.gpus: {each:g} for each worker, but this process sees {_count(len(found))};"
            " lower it, or look at CUDA_VISIBLE_DEVICES"
        )
    if each > 1 and any(gpu.is_instance for gpu in found):
        raise ConfigError(
            f"sweep.gpus: {each:g}: a process can use only one MIG instance; leave it out, and "
            "each instance gets a worker"
        )
    size = int(each)
    return [found[at : at + size] for at in range(0, len(found) - size + 1, size)]


def _device(gpus: Sequence[Gpu], share: float) -> WorkerDevice:
    kinds = " + ".join(dict.fromkeys(gpu.kind for gpu in gpus))
    return WorkerDevice(",".join(gpu.name for gpu in gpus), kinds, gpus[0].variable, share)


def _count(gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs"


@dataclass(frozen=True)
class FoundGpus:
    """The GPUs that were found, and a line on why there may be others, empty where none may."""

    gpus: tuple[Gpu, ...] = ()
    fault: str = ""


class _TorchSays(BaseModel):
    """What torch says."""

    model_config = ConfigDict(extra="forbid")

    torch: bool = True
    hip: bool = False
    names: Annotated[list[str], Field(max_length=1024)] = []
    uuids: list[str] = []


def find_gpus() -> FoundGpus:
    """Return the GPUs that this process may use; a second call in the same environment is free."""
    names = (CUDA, HIP, ROCR, "PATH", "PYTHONPATH")
    return _found(tuple((name, os.environ.get(name)) for name in names))


def listed_gpus() -> tuple[Gpu, ...]:
    """Return those that nvidia-smi lists, whether torch can use them or not."""
    visible = _visible(CUDA)
    return chosen_gpus(visible, gpu_listing()) if visible is not None else all_parts(gpu_listing())


@cache
def _found(environment: tuple[tuple[str, str | None], ...]) -> FoundGpus:
    if not _may_be(dict(environment)):
        return FoundGpus()
    answer = _asked()
    if isinstance(answer, str):
        return FoundGpus(listed_gpus(), answer)
    if not answer.names:
        return FoundGpus()
    return FoundGpus(_of_rocm(answer) if answer.hip else _of_cuda(answer))


def _may_be(environment: dict[str, str | None]) -> bool:
    """Tell whether to ask: importing torch takes seconds, and most machines have no GPU."""
    if environment[CUDA] is not None and not _visible(CUDA):
        return False
    if sys.platform == "win32" or any(environment[name] for name in (CUDA, HIP, ROCR)):
        return True
    return any(Path(file).exists() for file in DEVICE_FILES) or any(map(shutil.which, TOOLS))


def _asked() -> _TorchSays | str:
    """Ask torch in a process of its own; return its answer, or why there is none."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _ASK],
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            code = process.wait(MAX_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            return f"torch did not answer within {MAX_SECONDS:g} s"
        except OSError as error:
            return f"torch could not be queried: {error}"
        said.seek(0)
        last = said.read(1 << 20).strip().rpartition(b"\n")[2]
    if code != 0:
        return f"torch ended with exit code {code}"
    try:
        answer: _TorchSays = checked_as(
            _TorchSays, parse_json(last, "torch's answer"), "torch's answer"
        )
    except MixoptError as error:
        return str(error)
    return answer if answer.torch else _NO_TORCH


def _of_rocm(answer: _TorchSays) -> tuple[Gpu, ...]:
    visible = _visible(CUDA) if _visible(HIP) is None else _visible(HIP)
    names = _numbers(answer) if visible is None else visible
    return tuple(
        Gpu(name, plain_kind(kind), HIP) for name, kind in zip(names, answer.names, strict=False)
    )


def _of_cuda(answer: _TorchSays) -> tuple[Gpu, ...]:
    visible = _visible(CUDA)
    listing = gpu_listing()
    if any(gpu.instances for gpu in listing):
        found = (
            all_parts(listing) if visible is None else chosen_gpus(visible, listing, answer.uuids)
        )
        if found:
            return found
    names = _numbers(answer) if visible is None else visible
    kinds = answer.names
    if visible and visible[0].startswith("MIG-"):  # CUDA shows the first alone
        kinds = answer.names[:1] * len(visible)
    return tuple(Gpu(name, plain_kind(kind)) for name, kind in zip(names, kinds, strict=False))


def _visible(variable: str) -> list[str] | None:
    """Return the names in a variable, up to the first that is empty; None where unset."""
    text = os.environ.get(variable)
    if text is None:
        return None
    names: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not name or name.startswith("-"):
            break
        names.append(name)
    return names


def _numbers(answer: _TorchSays) -> list[str]:
    return [str(number) for number in range(len(answer.names))]


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of one that is cut into several.

    Attributes:
        name: What the variable calls it: a number, `GPU-...` or `MIG-...`.
        kind: Its model.
        variable: The variable that shows it to a process.
    """

    name: str
    kind: str
    variable: str = CUDA

    @property
    def is_instance(self) -> bool:
        """Whether it is a MIG instance, one of which a process can use."""
        return self.name.startswith("MIG-")


@dataclass(frozen=True)
class ListedGpu:
    """A GPU that nvidia-smi lists, with its instances."""

    gpu: Gpu
    number: str
    instances: tuple[Gpu, ...] = ()

    @property
    def parts(self) -> tuple[Gpu, ...]:
        """What workers can have of it."""
        return self.instances or (self.gpu,)


def chosen_gpus(
    visible: Sequence[str], listing: Sequence[ListedGpu], uuids: Sequence[str] = ()
) -> tuple[Gpu, ...]:
    """Return what the names of the variable stand for; a GPU that is cut, for its instances."""
    found: list[Gpu] = []
    for place, name in enumerate(visible):
        uuid = uuids[place] if place < len(uuids) else ""
        one = next((entry for entry in listing if _is_named(entry, name, uuid)), None)
        if name.startswith("MIG-"):
            every = (part for entry in listing for part in entry.instances)
            found += [part for part in every if part.name.startswith(name)][:1]
        elif one is not None:
            found += one.instances or [replace(one.gpu, name=name)]
    return tuple(dict.fromkeys(found))


def _is_named(entry: ListedGpu, name: str, uuid: str) -> bool:
    if name.startswith("GPU-"):
        return entry.gpu.name.startswith(name)
    if uuid:
        own = (entry.gpu, *entry.instances)
        return any(gpu.name.partition("-")[2] == uuid.removeprefix("GPU-") for gpu in own)
    return entry.number == name


def all_parts(listing: Sequence[ListedGpu]) -> tuple[Gpu, ...]:
    """Return the GPUs; of those that are cut, the instances."""
    return tuple(part for entry in listing for part in entry.parts)


def gpu_listing() -> list[ListedGpu]:
    """Return what `nvidia-smi -L` lists; nothing where it is not there, or fails."""
    tool = shutil.which(TOOL)
    if tool is None:
        return []
    try:
        told = subprocess.run(
            [tool, "-L"], capture_output=True, stdin=subprocess.DEVNULL, timeout=TOOL_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    found: list[ListedGpu] = []
    for line in told.stdout.decode(errors="replace").splitlines():
        if (whole := _GPU_LINE.match(line)) is not None:
            number, kind, name = whole.groups()
            found.append(ListedGpu(Gpu(name, plain_kind(kind)), number))
        elif (part := _MIG_LINE.match(line)) is not None and found:
            profile, name = part.groups()
            instance = Gpu(name, f"{found[-1].gpu.kind} MIG {profile}")
            found[-1] = replace(found[-1], instances=(*found[-1].instances, instance))
    return found


def plain_kind(kind: str) -> str:
    """Return the model of a GPU as it is shown."""
    return plain_line(kind.strip())[:MAX_NAME] or "GPU"
