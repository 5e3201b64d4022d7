"""Find the GPUs that this process may use, as torch sees them, without initialising one.

torch is asked in a process of its own: a process that has asked a GPU anything holds memory of it,
and its children cannot use it after a fork. It is asked only where a GPU may be: there is a device
file, a vendor's tool, or a variable that names one. A process that hangs or dies, or has no torch,
finds no GPU, and a line reports it.

Of a GPU that is cut into MIG instances CUDA shows the first alone, so `nvidia-smi -L` is asked for
the names of all of them. Under ROCm, `HIP_VISIBLE_DEVICES` chooses among what
`ROCR_VISIBLE_DEVICES` leaves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mixopt.errors import MixoptError
from mixopt.sweeps.nvidia_listing import (
    CUDA,
    TOOL,
    Gpu,
    all_parts,
    chosen_gpus,
    gpu_listing,
    plain_kind,
)
from mixopt.system import checked_as, parse_json

HIP, ROCR = "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
LONGEST = 60.0  # seconds for torch to be imported and to answer
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
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            return f"torch did not answer within {LONGEST:g} s"
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
    """Return the names that a variable has, up to the first that is none; None where it is unset.

    CUDA passes over all that follows a name that it does not take, such as -1.
    """
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
