"""Train groups on this machine: one process a core, or a GPU, which stays for the next group.

Small models do not fill a team of threads, and a team on shared cores waits for its slowest
member; processes do neither. A process that starts Python and torch costs seconds, so that it is
handed one folder after another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from mixopt.sweeps.contract import Ended, Place, Site, State
from mixopt.sweeps.devices import PLACE, WorkerDevice, worker_devices
from mixopt.sweeps.group_folder import RESULT
from mixopt.sweeps.trial_files import LOGS

DYING = 10.0  # seconds until a killed process is left to the kernel


class Worker:
    """A process that trains one folder after another; another takes its place where it has died."""

    def __init__(self, device: WorkerDevice, place: Place, log: Path) -> None:
        """Note what it has; no process is started yet."""
        self._log = log
        self._environment = device.environment() | {PLACE: json.dumps(asdict(place))}
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    @property
    def is_free(self) -> bool:
        """Whether it has nothing to train, and the owner has taken note of what it had."""
        folder = self._folder
        return folder is None or (folder / RESULT).exists() or not folder.exists()

    @property
    def ended(self) -> Ended | None:
        """How its process ended; None while that runs, or is stopped."""
        code = None if self._process is None else self._process.poll()
        return None if code is None else Ended.with_code(code, f"; see {self._log}")

    def begin(self, folder: Path) -> None:
        """Have a folder trained."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._started()
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

    def _started(self) -> subprocess.Popen[bytes]:
        self.kill()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-P", "-m", "mixopt.sweeps.train_group", "--of", str(os.getpid())]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
            )


class LocalExecutor:
    """Processes on this machine; the handle of a folder is the number of its process."""

    poll = 0.02
    queues = outlives_owner = False

    def __init__(self, site: Site) -> None:
        """Find the devices; no process is started yet."""
        devices = worker_devices(site.device, site.workers, site.gpus, site.say)
        logs = site.folder / LOGS
        self._workers = [
            Worker(device, device.place, logs / f"worker-{number}.log")
            for number, device in enumerate(devices, start=1)
        ]

    @property
    def slots(self) -> int:
        """How many folders train at once."""
        return len(self._workers)

    def start(self, folders: Sequence[Path]) -> list[str]:
        """Hand folders to processes that have nothing to train."""
        free = [number for number, worker in enumerate(self._workers) if worker.is_free]
        handles = []
        for number, folder in zip(free, folders, strict=False):
            self._workers[number].begin(folder)
            handles.append(str(number))
        return handles

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
