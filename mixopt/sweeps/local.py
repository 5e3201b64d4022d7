"""The local executor: one worker process for each core or GPU, reused for many groups.

Small models do not keep several threads busy, so workers have one thread each. Starting Python and
torch takes seconds, so a worker trains one folder after another. GPUs are listed by torch in a
short-lived process, because a process that has initialised CUDA holds memory of the GPU.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from mixopt.errors import ConfigError, plain_line
from mixopt.sweeps.contract import COMMAND, ONE_THREAD, Ended, Site, State
from mixopt.sweeps.groups import has_result, log_of
from mixopt.system import Say, silent, usable_cores

DEVICE_VARIABLE = "MIXOPT_PLACE"  # environment variable with the device of a worker
VISIBLE = "CUDA_VISIBLE_DEVICES"
KILL_TIMEOUT = 10.0  # seconds to wait for a killed process
MAX_SECONDS = 60.0  # for torch to be imported and to list the GPUs
MAX_ERROR = 200  # characters
# NVIDIA's two, WSL's, AMD's: without any of them there is no GPU, and torch is not imported.
DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
_LIST_GPUS = """
import json, sys, torch
names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
sys.stdout.write("\\n" + json.dumps(names))
"""


class Gpu(NamedTuple):
    """A GPU: its name in CUDA_VISIBLE_DEVICES, and its model."""

    name: str
    model: str


@dataclass(frozen=True)
class WorkerDevice:
    """Device of one worker: a core, or GPUs named as in CUDA_VISIBLE_DEVICES."""

    visible: str | None = None
    kind: str = "cpu"
    gpus: float = 0.0  # less than 1 where workers share one

    def __str__(self) -> str:
        """Return `cpu`, or the GPU's model with the count."""
        return self.kind if self.gpus < 2 else f"{self.gpus:g} x {self.kind}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a worker that may use only this device."""
        variables = {DEVICE_VARIABLE: json.dumps({"kind": self.kind, "gpus": self.gpus})}
        if self.visible:
            variables[VISIBLE] = self.visible
        else:
            variables |= dict.fromkeys(ONE_THREAD, "1")
        return os.environ | variables


def worker_devices(
    device: str, workers: int | None, gpus: float | None = None, say: Say = silent
) -> list[WorkerDevice]:
    """Return the device of each worker."""
    available: list[Gpu] = []
    if device != "cpu":
        available = find_gpus(say)
    if device.startswith("cuda:"):
        number = int(device.removeprefix("cuda:"))
        available = available[number : number + 1]
    if not available and (gpus is None or device == "cpu"):
        return [WorkerDevice()] * (workers or usable_cores())
    per_worker = gpus or 1.0
    _check_gpus(per_worker, len(available))
    sets = _gpu_sets(available, per_worker)
    count = workers or len(sets)
    if count > len(sets):
        say(f"sweep.workers: {count} workers share {_gpu_count(len(available))}")
    share = per_worker * min(1.0, len(sets) / count)
    devices = []
    for gpu_set in islice(cycle(sets), count):
        visible = ",".join(gpu.name for gpu in gpu_set)
        devices.append(WorkerDevice(visible, gpu_set[0].model, share))
    return devices


def _check_gpus(per_worker: float, available: int) -> None:
    """Check the number of GPUs of one worker."""
    if per_worker > 1 and per_worker != int(per_worker):
        raise ConfigError(
            f"sweep.gpus: {per_worker:g}: must be a whole number of GPUs, or a share below 1"
        )
    if per_worker > available:
        raise ConfigError(
            f"sweep.gpus: {per_worker:g} for each worker, but this process sees"
            f" {_gpu_count(available)}; lower it, or look at {VISIBLE}"
        )


def _gpu_sets(gpus: Sequence[Gpu], per_worker: float) -> list[Sequence[Gpu]]:
    """Return the GPUs of each worker: several whole ones, or one that workers share."""
    size = max(1, int(per_worker))
    workers_per_set = max(1, int(1 / per_worker + 1e-9))
    sets: list[Sequence[Gpu]] = []
    for first in range(0, len(gpus) - size + 1, size):
        sets += [gpus[first : first + size]] * workers_per_set
    return sets


def _gpu_count(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def find_gpus(say: Say = silent) -> list[Gpu]:
    """Return the GPUs that this process may use."""
    visible = os.environ.get(VISIBLE)
    has_device_file = any(map(os.path.exists, DEVICE_FILES))
    if visible == "" or (visible is None and not has_device_file):
        return []
    models, error = _cuda_models(visible, os.environ.get("PYTHONPATH"))
    if error:
        say(f"{error}, so it finds no GPU; the workers have a core each")
    if visible is None:
        names = [str(number) for number in range(len(models))]
    else:
        names = [name.strip() for name in visible.split(",")]
    return [Gpu(name, model) for name, model in zip(names, models, strict=False)]


@cache
def _cuda_models(*_: str | None) -> tuple[list[str], str]:
    """Return the models of the GPUs, and an error text if torch cannot list them."""
    words = [sys.executable, "-P", "-c", _LIST_GPUS]
    pipes: Any = {"stdin": subprocess.DEVNULL, "capture_output": True, "errors": "replace"}
    try:
        process = subprocess.run(words, check=True, timeout=MAX_SECONDS, **pipes)
        names = json.loads(process.stdout.rpartition("\n")[2])
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        return [], plain_line(f"torch ended with exit code {error.returncode}: {last}")[:MAX_ERROR]
    except subprocess.TimeoutExpired:
        return [], f"torch did not answer within {MAX_SECONDS:g} s"
    except ValueError as error:
        return [], f"torch could not be asked: {error}"
    return names, ""


class Worker:
    """A process that trains one folder after another, and is restarted after it died."""

    def __init__(self, device: WorkerDevice) -> None:
        """Store the device; starts no process."""
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    @property
    def is_free(self) -> bool:
        """Whether it can take a folder: the last one has a result or was deleted by the owner."""
        folder = self._folder
        return folder is None or has_result(folder) or not folder.exists()

    @property
    def ended(self) -> Ended | None:
        """How its process ended; None while it runs or is stopped by a signal."""
        if self._process is None:
            return None
        code = self._process.poll()
        return None if code is None else Ended.with_code(code)

    def begin(self, folder: Path) -> None:
        """Start training a folder."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start_process(folder)
        self._folder = folder
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died; `ended` reports that
            self._process.stdin.write(f"{folder}\n".encode())
            self._process.stdin.flush()

    def kill(self) -> None:
        """Kill the process, even if it is stopped by a signal."""
        if self._process is not None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=KILL_TIMEOUT)
        self._process = None
        self._folder = None

    def _start_process(self, folder: Path) -> subprocess.Popen[bytes]:
        self.kill()  # closes the pipe of one that has ended
        log_of(folder).parent.mkdir(exist_ok=True)
        with log_of(folder).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *COMMAND, "--of", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._device.environment,
            )


class LocalExecutor:
    """Processes on this machine; a handle is the number of a worker."""

    poll = 0.02
    queues = outlives_owner = False

    def __init__(self, site: Site) -> None:
        """Find the devices; starts no process."""
        devices = worker_devices(site.device, site.workers, site.gpus, site.say)
        self._workers = {str(number): Worker(device) for number, device in enumerate(devices)}

    @property
    def slots(self) -> int:
        """Number of folders that train at once."""
        return len(self._workers)

    def start(self, folders: Sequence[Path]) -> list[str]:
        """Give folders to free workers."""
        free = [handle for handle, worker in self._workers.items() if worker.is_free]
        for handle, folder in zip(free, folders, strict=False):
            self._workers[handle].begin(folder)
        return free[: len(folders)]

    def states(self, handles: Sequence[str]) -> dict[str, State]:
        """Return which workers have ended."""
        return {handle: self._workers[handle].ended or "running" for handle in handles}

    def cancel(self, handles: Sequence[str]) -> None:
        """Kill workers; they are restarted when there is work."""
        for handle in handles:
            self._workers[handle].kill()

    def close(self) -> None:
        """Kill all workers."""
        for worker in self._workers.values():
            worker.kill()
