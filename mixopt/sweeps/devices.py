"""The devices of workers: a core, or GPUs visible to that worker only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from mixopt.errors import ConfigError
from mixopt.sweeps.contract import Place
from mixopt.sweeps.gpu_discovery import find_gpus, listed_gpus
from mixopt.sweeps.nvidia_listing import CUDA, Gpu
from mixopt.system import Say, host_name, silent, usable_cores

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True)
class WorkerDevice:
    """What one worker has.

    Attributes:
        visible: Its GPUs, as `variable` names them; None for a core.
        kind: The GPUs' name, or `cpu`.
        variable: The variable that shows them to it, and no others.
        share: Of each of its GPUs, where workers share them.
        node: The host, as a scheduler calls it; by its own name when empty.
    """

    visible: str | None = None
    kind: str = "cpu"
    variable: str = CUDA
    share: float = 1.0
    node: str = ""

    @property
    def gpus(self) -> int:
        """How many GPUs it has, or has a share of."""
        return 0 if self.visible is None else len(self.visible.split(","))

    @property
    def place(self) -> Place:
        """Where a group that trains on it is."""
        return Place(self.node or host_name(), self.kind, self.gpus * self.share)

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
    """Return what each worker computes on.

    Args:
        device: `proxy.device`.
        workers: How many; one a core, or one for each `gpus` GPUs, when None. More workers than
            there are GPUs for share them.
        gpus: GPUs of one worker; one when None. A fraction below 1 lets so many share one.
        say: Called with a line on what is not as a reader may expect.

    Raises:
        ConfigError: `gpus` is more than there are, or no number of GPUs that a worker can have.
    """
    found = [] if device == "cpu" else _found(gpus is not None, say)
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


def _found(asked: bool, say: Say) -> list[Gpu]:
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
