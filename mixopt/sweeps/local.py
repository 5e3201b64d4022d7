"""Train groups on this machine: one process a core, or a GPU, which stays for the next group.

Small models do not fill a team of threads, and a team on shared cores waits for its slowest
member; processes do neither. A process that starts Python and torch costs seconds, so that it is
handed one folder after another. The GPUs are those that torch sees, asked in a process of its own:
one that has asked a GPU anything holds memory of it.
"""

from __future__ import annotations

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

from mixopt.errors import ConfigError, plain_line
from mixopt.sweeps.contract import COMMAND, ONE_THREAD, Ended, Site, State
from mixopt.sweeps.groups import has_result, log_of
from mixopt.system import Say, host_name, silent, usable_cores

PLACE = "MIXOPT_PLACE"  # the variable that says to a worker where it is
VISIBLE = "CUDA_VISIBLE_DEVICES"
DYING = 10.0  # seconds until a killed process is left to the kernel
MAX_NAME = 80  # characters
MAX_SECONDS = 60.0  # for torch to be imported and to answer
# NVIDIA's, that of Windows below Linux, AMD's: without any of them torch is not asked.
DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
_ASK = """
import json, sys, torch
names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
sys.stdout.write("\\n" + json.dumps([str(name) for name in names]))
"""


@dataclass(frozen=True)
class WorkerDevice:
    """What one worker has: a core, or GPUs as CUDA_VISIBLE_DEVICES names them."""

    visible: str | None = None
    kind: str = "cpu"
    gpus: float = 0.0  # less than 1 where workers share one

    def __str__(self) -> str:
        """Say what it is: `cpu`, or the GPUs' name with how many there are."""
        return self.kind if self.gpus < 2 else f"{self.gpus:g} x {self.kind}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that has this device and no other."""
        place = json.dumps({"node": host_name(), "kind": self.kind, "gpus": self.gpus})
        own = {VISIBLE: self.visible} if self.visible else dict.fromkeys(ONE_THREAD, "1")
        return {**os.environ, **own, PLACE: place}


def worker_devices(
    device: str, workers: int | None, gpus: float | None = None, say: Say = silent
) -> list[WorkerDevice]:
    """Return what each worker computes on."""
    devices = [] if device == "cpu" else find_gpus(say)
    if device.startswith("cuda:"):
        devices = devices[int(device.removeprefix("cuda:")) :][:1]
    if not devices and (gpus is None or device == "cpu"):
        return [WorkerDevice()] * (workers or usable_cores())
    each, seen = gpus or 1.0, "1 GPU" if len(devices) == 1 else f"{len(devices)} GPUs"
    size, shares = max(1, int(each)), max(1, int(1 / each + 1e-9))
    if each > 1 and each != size:
        raise ConfigError(
            f"sweep.gpus: {each:g}: must be a whole number of GPUs, or a share below 1"
        )
    if each > len(devices):
        raise ConfigError(
            f"sweep.gpus: {each:g} for each worker, but this process sees {seen}; lower it, or look"
            f" at {VISIBLE}"
        )
    starts = range(0, len(devices) - size + 1, size)
    sets = [devices[at : at + size] for at in starts for _ in range(shares)]
    count = workers or len(sets)
    if count > len(sets):
        say(f"sweep.workers: {count} workers share {seen}")
    share = each * min(1.0, len(sets) / count)
    return [
        WorkerDevice(",".join(name for name, _ in own), own[0][1], share)
        for own in islice(cycle(sets), count)
    ]


def find_gpus(say: Say = silent) -> list[tuple[str, str]]:
    """Return the name in CUDA_VISIBLE_DEVICES, and the model, of each GPU that this process has."""
    visible = os.environ.get(VISIBLE)
    may_be = bool(visible) or (visible is None and any(map(os.path.exists, DEVICE_FILES)))
    kinds, fault = _asked_torch(visible, os.environ.get("PYTHONPATH")) if may_be else ([], "")
    if fault:
        say(f"{fault}, so it finds no GPU; the workers have a core each")
    names = map(str, range(len(kinds))) if visible is None else map(str.strip, visible.split(","))
    return list(zip(names, kinds, strict=False))


@cache
def _asked_torch(*_: str | None) -> tuple[list[str], str]:
    """Return the models of the GPUs, or why they are not known."""
    words = [sys.executable, "-P", "-c", _ASK]
    try:
        ended = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=MAX_SECONDS
        )
        if ended.returncode != 0:
            last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            return [], plain_line(f"torch ended with exit code {ended.returncode}: {last}")[:200]
        names = json.loads(ended.stdout.rpartition(b"\n")[2])
        return [plain_line(name.strip())[:MAX_NAME] or "GPU" for name in names], ""
    except subprocess.TimeoutExpired:
        return [], f"torch did not answer within {MAX_SECONDS:g} s"
    except (OSError, ValueError) as error:
        return [], f"torch could not be asked: {error}"


class Worker:
    """A process that trains one folder after another; another takes its place where it has died."""

    def __init__(self, device: WorkerDevice) -> None:
        """Note what it has; no process is started yet."""
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    @property
    def is_free(self) -> bool:
        """Whether it has nothing to train, and the owner has taken note of what it had."""
        folder = self._folder
        return folder is None or has_result(folder) or not folder.exists()

    @property
    def ended(self) -> Ended | None:
        """How its process ended; None while that runs, or is stopped."""
        code = None if self._process is None else self._process.poll()
        return None if code is None else Ended.with_code(code)

    def begin(self, folder: Path) -> None:
        """Have a folder trained."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._started(folder)
        self._folder = folder
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died, as `ended` says
            self._process.stdin.write(f"{folder}\n".encode())
            self._process.stdin.flush()

    def kill(self) -> None:
        """Kill the process, stopped or not."""
        process, self._folder = self._process, None
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(DYING)
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()

    def _started(self, folder: Path) -> subprocess.Popen[bytes]:
        self.kill()
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
    """Processes on this machine; the handle of a folder is the number of its process."""

    poll = 0.02
    queues = outlives_owner = False

    def __init__(self, site: Site) -> None:
        """Find the devices; no process is started yet."""
        devices = worker_devices(site.device, site.workers, site.gpus, site.say)
        self._workers = [Worker(device) for device in devices]

    @property
    def slots(self) -> int:
        """How many folders train at once."""
        return len(self._workers)

    def start(self, folders: Sequence[Path]) -> list[str]:
        """Hand folders to processes that have nothing to train."""
        free = [number for number, worker in enumerate(self._workers) if worker.is_free]
        given = dict(zip(free, folders, strict=False))
        for number, folder in given.items():
            self._workers[number].begin(folder)
        return list(map(str, given))

    def states(self, handles: Sequence[str]) -> dict[str, State]:
        """Return which processes are gone."""
        return {handle: self._workers[int(handle)].ended or "running" for handle in handles}

    def cancel(self, handles: Sequence[str]) -> None:
        """Kill processes; another takes the place of each when there is work."""
        for handle in handles:
            self._workers[int(handle)].kill()

    def close(self) -> None:
        """Kill all of them."""
        for worker in self._workers:
            worker.kill()
