"""What a worker may compute on: a core, or GPUs that are shown to it alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mixopt.sweeps.contract import Place
from mixopt.system import host_name

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True)
class WorkerDevice:
    """What one worker has.

    Attributes:
        visible: Its GPUs, as `CUDA_VISIBLE_DEVICES` names them; None for a core.
        kind: The GPUs' name, or `cpu`.
        share: GPUs that count as its own, where it has a part of one; all that it sees when None.
        node: The host, as a scheduler calls it; by its own name when empty.
    """

    visible: str | None = None
    kind: str = "cpu"
    share: float | None = None
    node: str = ""

    @property
    def gpus(self) -> int:
        """How many GPUs it has."""
        return 0 if self.visible is None else len(self.visible.split(","))

    @property
    def place(self) -> Place:
        """Where a group that trains on it is."""
        share = self.gpus if self.share is None else self.share
        return Place(node=self.node or host_name(), kind=self.kind, gpus=share)

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that has this device and no other."""
        if self.visible is None:
            return os.environ | dict.fromkeys(ONE_THREAD, "1")
        return os.environ | {"CUDA_VISIBLE_DEVICES": self.visible}


def worker_devices(
    device: str, workers: int | None, gpus: float | None = None
) -> list[WorkerDevice]:
    """Return what each worker computes on.

    Args:
        device: `proxy.device`.
        workers: How many; one a core, or one for each `gpus` GPUs, when None.
        gpus: GPUs of one worker; one when None.
    """
    found = [] if device == "cpu" else _gpus()
    if device.startswith("cuda:"):
        found = found[int(device.removeprefix("cuda:")) :][:1]
    if not found:
        return [WorkerDevice()] * (workers or _cores())
    each = max(1, int(gpus or 1))
    names = [",".join(found[at : at + each]) for at in range(0, len(found) - each + 1, each)]
    return [
        WorkerDevice(names[place % len(names)], "cuda") for place in range(workers or len(names))
    ]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(n) for n, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


def _cores() -> int:
    """Count the cores that this process may use, a container's limit included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores or 1, max(1, int(quota) // int(period)))
    return cores or 1
