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
CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
MAX_NAME = 80  # characters
MAX_SECONDS = 60.0  # for torch to be imported and to answer
TOOL, TOOL_SECONDS = "nvidia-smi", 10.0  # it hangs with its driver
TOOLS = (TOOL, "rocm-smi")
# NVIDIA's, that of Windows below Linux, AMD's.
DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")

_GPU_LINE = re.compile(r"GPU (\d+): (.+?) \(UUID: (GPU-[0-9a-fA-F-]+)\)")
_MIG_LINE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[\w/-]+)\)")
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


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of one that is cut into several.

    Attributes:
        name: What the variable calls it: a number, `GPU-...` or `MIG-...`.
        kind: Its model.
        variable: The variable that shows it to a process.
        number: Its place in the list of nvidia-smi.
        instances: What it is cut into.
    """

    name: str
    kind: str
    variable: str = CUDA
    number: str = ""
    instances: tuple[Gpu, ...] = ()

    def is_named(self, name: str, uuid: str) -> bool:
        """Tell whether a name of CUDA's stands for it; torch's uuid decides what a number means."""
        if name.startswith("GPU-"):
            return self.name.startswith(name)
        own = [gpu.name.partition("-")[2] for gpu in (self, *self.instances)]
        return uuid.removeprefix("GPU-") in own if uuid else self.number == name


@dataclass(frozen=True)
class FoundGpus:
    """The GPUs that were found, and a line on why there may be others, empty where none may."""

    gpus: Sequence[Gpu] = ()
    fault: str = ""


class _TorchGpus(BaseModel):
    """What torch says of its GPUs."""

    model_config = ConfigDict(extra="forbid")

    torch: bool = True
    hip: bool = False
    names: Annotated[list[str], Field(max_length=1024)] = Field(default_factory=list)
    uuids: list[str] = Field(default_factory=list)


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
    if count > len(sets):
        say(f"sweep.workers: {workers} workers share {_count(len(found))}")
    share = min(1.0, gpus or 1.0) * min(1.0, len(sets) / count)
    return [
        WorkerDevice(",".join(gpu.name for gpu in own), _kinds(own), own[0].variable, share)
        for own in (sets[place % len(sets)] for place in range(count))
    ]


def place_here(device: str) -> Place:
    """Return the place of a process that has all GPUs which it sees, as a scheduler gives them."""
    gpus = () if device == "cpu" else find_gpus().gpus
    return Place(kind=_kinds(gpus) or "cpu", gpus=float(len(gpus)))


def find_gpus() -> FoundGpus:
    """Return the GPUs that this process may use; a second call in the same environment is free."""
    names = (CUDA, HIP, ROCR, "PATH", "PYTHONPATH")
    return _found(tuple((name, os.environ.get(name)) for name in names))


def _usable(wanted: bool, say: Say) -> list[Gpu]:
    """Return the GPUs; where they are asked for, also those that torch does not see."""
    found = find_gpus()
    if found.fault:
        listed = f"nvidia-smi lists {_count(len(found.gpus))}"
        then = listed if found.gpus else "the workers have a core each"
        say(f"{found.fault}, so it finds no GPU; {then}")
    return list(found.gpus or (_listed(_visible(CUDA)) if wanted else ()))


def _sets(found: Sequence[Gpu], each: float) -> list[Sequence[Gpu]]:
    """Return the GPUs of each worker: a set of several, or one that several workers have."""
    if each < 1:
        return [[gpu] for gpu in found for _ in range(max(1, int(1 / each + 1e-9)))]
    fault = ""
    if each != int(each):
        fault = ": must be a whole number of GPUs, or a share below 1"
    elif each > len(found):
        fault = (
            f" for each worker, but this process sees {_count(len(found))}; lower it, or look at"
            " CUDA_VISIBLE_DEVICES"
        )
    elif each > 1 and any(gpu.name.startswith("MIG-") for gpu in found):
        fault = (
            ": a process can use only one MIG instance; leave it out, and each instance gets a"
            " worker"
        )
    if fault:
        raise ConfigError(f"sweep.gpus: {each:g}{fault}")
    size = int(each)
    return [found[at : at + size] for at in range(0, len(found) - size + 1, size)]


def _kinds(gpus: Sequence[Gpu]) -> str:
    return " + ".join(dict.fromkeys(gpu.kind for gpu in gpus))


def _count(gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs"


@cache
def _found(environment: tuple[tuple[str, str | None], ...]) -> FoundGpus:
    if not _may_be(dict(environment)):
        return FoundGpus()
    answer = _torch_gpus()
    if isinstance(answer, str):
        return FoundGpus(_listed(_visible(CUDA)), answer)
    cuda, numbers = _visible(CUDA), [str(number) for number in range(len(answer.names))]
    if answer.hip:
        visible = cuda if _visible(HIP) is None else _visible(HIP)
        return FoundGpus(_shown(numbers if visible is None else visible, answer.names, HIP))
    if answer.names and any(gpu.instances for gpu in _listing()):
        parts = _listed(cuda, answer.uuids)
        if parts:
            return FoundGpus(parts)
    kinds = answer.names
    if cuda and cuda[0].startswith("MIG-"):  # CUDA shows the first alone
        kinds = kinds[:1] * len(cuda)
    return FoundGpus(_shown(numbers if cuda is None else cuda, kinds, CUDA))


def _may_be(environment: dict[str, str | None]) -> bool:
    """Tell whether to ask: importing torch takes seconds, and most machines have no GPU."""
    if environment[CUDA] is not None and not _visible(CUDA):
        return False
    if sys.platform == "win32" or any(environment[name] for name in (CUDA, HIP, ROCR)):
        return True
    return any(Path(file).exists() for file in DEVICE_FILES) or any(map(shutil.which, TOOLS))


def _torch_gpus() -> _TorchGpus | str:
    """Ask torch in a process of its own; return its answer, or why there is none."""
    with tempfile.TemporaryFile() as output:
        words = [sys.executable, "-P", "-c", _ASK]
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL
            )
            code = process.wait(MAX_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            return f"torch did not answer within {MAX_SECONDS:g} s"
        except OSError as error:
            return f"torch could not be queried: {error}"
        output.seek(0)
        last = output.read(1 << 20).strip().rpartition(b"\n")[2]
    if code != 0:
        return f"torch ended with exit code {code}"
    name = "torch's answer"
    try:
        answer: _TorchGpus = checked_as(_TorchGpus, parse_json(last, name), name)
    except MixoptError as error:
        return str(error)
    return answer if answer.torch else "torch is not installed here"


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


def _shown(names: Sequence[str], kinds: Sequence[str], variable: str) -> list[Gpu]:
    pairs = zip(names, kinds, strict=False)
    return [Gpu(name, _plain_kind(kind), variable) for name, kind in pairs]


def _listed(visible: Sequence[str] | None, uuids: Sequence[str] = ()) -> list[Gpu]:
    """Return what nvidia-smi lists of the names of the variable; of a cut GPU, its instances."""
    listing = _listing()
    if visible is None:
        return [part for gpu in listing for part in gpu.instances or (gpu,)]
    found: list[Gpu] = []
    for place, name in enumerate(visible):
        uuid = uuids[place] if place < len(uuids) else ""
        whole = next((gpu for gpu in listing if gpu.is_named(name, uuid)), None)
        if name.startswith("MIG-"):
            parts = [part for gpu in listing for part in gpu.instances]
            found += [part for part in parts if part.name.startswith(name)][:1]
        elif whole is not None:
            found += whole.instances or [replace(whole, name=name)]
    return list(dict.fromkeys(found))


def _listing() -> list[Gpu]:
    """Return what `nvidia-smi -L` lists; nothing where it is not there, or fails."""
    tool = shutil.which(TOOL)
    if tool is None:
        return []
    try:
        ended = subprocess.run(
            [tool, "-L"], capture_output=True, stdin=subprocess.DEVNULL, timeout=TOOL_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    gpus: list[Gpu] = []
    for line in ended.stdout.decode(errors="replace").splitlines():
        if (whole := _GPU_LINE.match(line)) is not None:
            number, kind, name = whole.groups()
            gpus.append(Gpu(name, _plain_kind(kind), number=number))
        elif (part := _MIG_LINE.match(line)) is not None and gpus:
            profile, name = part.groups()
            instance = Gpu(name, f"{gpus[-1].kind} MIG {profile}")
            gpus[-1] = replace(gpus[-1], instances=(*gpus[-1].instances, instance))
    return gpus


def _plain_kind(kind: str) -> str:
    """Return the model of a GPU as it is shown."""
    return plain_line(kind.strip())[:MAX_NAME] or "GPU"
