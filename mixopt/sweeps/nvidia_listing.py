"""GPUs as `nvidia-smi -L` lists them, MIG instances with the names that CUDA takes.

GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixopt.errors import plain_line

CUDA = "CUDA_VISIBLE_DEVICES"
TOOL = "nvidia-smi"
TOOL_SECONDS = 10.0  # it hangs with its driver
LONGEST_NAME = 80  # characters

_GPU_LINE = re.compile(r"GPU (\d+): (.+?) \(UUID: (GPU-[0-9a-fA-F-]+)\)")
_MIG_LINE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[\w/-]+)\)")


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
    """Return what the names of the variable stand for; a GPU that is cut, for its instances.

    Args:
        visible: The names: numbers, identifiers, or beginnings of such.
        listing: What nvidia-smi lists.
        uuids: The identifiers that torch gives for them, since its numbers may be others.
    """
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
    return plain_line(kind.strip())[:LONGEST_NAME] or "GPU"
