"""Run groups of trials on this machine: one worker process a core, or a GPU, one thread each.

Small models do not fill a team of threads, and a team on shared cores waits for its slowest
member; processes do neither. A worker that dies or hangs takes its own group along and no other:
the group is handed back with the reason, and another worker takes its place.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError
from mixopt.sweeps.messages import Answer, Fault
from mixopt.sweeps.watch import PATIENCE
from mixopt.sweeps.worker_process import Job, WorkerProcess
from mixopt.trials import Progress, Trial, TrialResult, result_from_json, trial_to_json

Report = Callable[[int, Progress], None]
_Waiting = queue.SimpleQueue[tuple[int, Sequence[Trial]] | None]


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group: its results, or the reason why there are none.

    Attributes:
        group: Its number.
        results: One for each trial.
        reason: Why there are none.
        fault: What its worker ended with, where another one may do better; None where the proxy
            itself gave the reason.
    """

    group: int
    results: list[TrialResult] | None
    reason: str | None = None
    fault: Fault | None = None


class LocalExecutor:
    """Worker processes on this machine.

    Use as a context manager; leaving it ends the workers.
    """

    def __init__(
        self, job: Job, workers: int | None, log: Path, patience: float = PATIENCE
    ) -> None:
        self._job = job
        self._devices = worker_devices(job.training.device, workers)
        self._log, self._patience = log, patience
        self._workers: list[WorkerProcess | None] = [None] * len(self._devices)
        self._starting, self._closed = threading.Lock(), False

    @property
    def workers(self) -> int:
        """How many groups train at once."""
        return len(self._devices)

    def __enter__(self) -> LocalExecutor:
        """Start no process yet: the first work does."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        with self._starting:
            self._closed = True
        for worker in self._workers:
            if worker is not None:
                worker.end()

    def group_size(self) -> int:
        """Ask one worker how many trials it trains together at best; another if that one dies.

        Raises:
            MixoptError: The proxy cannot be built, or refuses the corpus; or both workers died.
        """
        answer = self._ask(0, {"tune": True}, lambda _: None)
        if answer.fault is not None:
            answer = self._ask(0, {"tune": True}, lambda _: None)
        if answer.tuned is None:
            raise MixoptError(answer.error or "the worker's answer cannot be used: no size")
        return answer.tuned

    def run(self, groups: Mapping[int, Sequence[Trial]], report: Report) -> Iterator[GroupOutcome]:
        """Train the groups, as many at once as there are workers.

        Args:
            groups: Trials by the number of their group. Between two outcomes more may be added,
                such as what is left of a group whose worker died; they are trained as well.
            report: Called from other threads with a group's progress.

        Yields:
            An outcome for each group, as it ends.
        """
        waiting: _Waiting = queue.SimpleQueue()
        ended: queue.SimpleQueue[GroupOutcome] = queue.SimpleQueue()
        handed: set[int] = set()
        count = places = 0
        try:
            while True:
                for number in [number for number in groups if number not in handed]:
                    handed.add(number)
                    waiting.put((number, groups[number]))
                for place in range(places, min(self.workers, len(handed) - count)):
                    serve = (place, waiting, ended, report)
                    threading.Thread(target=self._serve, args=serve, daemon=True).start()
                    places = place + 1
                if count == len(handed):
                    return
                yield ended.get()
                count += 1
        finally:
            for _ in range(places):
                waiting.put(None)

    def _serve(
        self,
        place: int,
        waiting: _Waiting,
        ended: queue.SimpleQueue[GroupOutcome],
        report: Report,
    ) -> None:
        while (entry := waiting.get()) is not None and not self._closed:
            ended.put(self._outcome(place, *entry, report))

    def _outcome(
        self, place: int, number: int, trials: Sequence[Trial], report: Report
    ) -> GroupOutcome:
        try:
            request = {"group": [trial_to_json(trial) for trial in trials]}
            answer = self._ask(place, request, lambda progress: report(number, progress))
            if answer.results is None:
                reason = answer.error or "the worker's answer cannot be used: no results"
                return GroupOutcome(number, None, reason, answer.fault)
            return GroupOutcome(number, [result_from_json(entry) for entry in answer.results])
        except Exception as error:  # whatever a third party's proxy answers, the sweep goes on
            return GroupOutcome(number, None, f"the worker's answer cannot be used: {error!r}")

    def _ask(
        self, place: int, request: dict[str, Any], report: Callable[[Progress], None]
    ) -> Answer:
        worker = self._worker(place)
        answer = worker.ask(request, report)
        if answer.fault is not None:
            worker.end()  # what it still holds of the memory goes with it
        return answer

    def _worker(self, place: int) -> WorkerProcess:
        with self._starting:
            if self._closed:
                raise MixoptError("the sweep has ended")
            worker = self._workers[place]
            if worker is not None and not worker.alive:
                worker.end()
            if worker is None or not worker.alive:
                worker = WorkerProcess(self._job, self._devices[place], self._log, self._patience)
                self._workers[place] = worker
            return worker


def worker_devices(device: str, workers: int | None) -> list[str | None]:
    """Return the GPU of each worker, or None for each that has a core.

    Args:
        device: `proxy.device`.
        workers: How many; one a core or GPU when None.
    """
    gpus = [] if device == "cpu" else _gpus()
    if device.startswith("cuda:"):
        gpus = gpus[int(device.removeprefix("cuda:")) :][:1]
    if not gpus:
        return [None] * (workers or _cores())
    return [gpus[place % len(gpus)] for place in range(workers or len(gpus))]


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
