"""Run groups of trials on this machine: one worker process a core, or a GPU, one thread each.

Small models do not fill a team of threads, and a team on shared cores waits for its slowest
member; processes do neither. A worker that dies takes its own group along and no other: the
group is handed back with the reason, and another worker takes its place.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError
from mixopt.trials import Progress, Training, Trial, TrialResult, result_from_json, trial_to_json

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True)
class Job:
    """What all groups of a sweep share."""

    proxy: str
    options: dict[str, Any]
    corpus: Path
    training: Training


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group: its results, or the reason why there are none."""

    group: int
    results: list[TrialResult] | None
    reason: str | None = None


class LocalExecutor:
    """Worker processes on this machine.

    Use as a context manager; leaving it ends the workers.
    """

    def __init__(self, job: Job, workers: int | None, log: Path) -> None:
        self._job = job
        self._devices = _devices(job.training.device, workers)
        self._log = log
        self._workers: list[_Worker | None] = [None] * len(self._devices)

    @property
    def workers(self) -> int:
        """How many groups train at once."""
        return len(self._devices)

    def __enter__(self) -> LocalExecutor:
        """Start no process yet: the first work does."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        for worker in self._workers:
            if worker is not None:
                worker.end()

    def group_size(self) -> int:
        """Ask one worker how many trials it trains together at best.

        Raises:
            MixoptError: The proxy cannot be built, or refuses the corpus.
        """
        answer = self._worker(0).ask({"tune": True}, lambda _: None)
        if "error" in answer:
            raise MixoptError(answer["error"])
        return max(1, int(answer["tuned"]))

    def run(
        self,
        groups: Mapping[int, Sequence[Trial]],
        report: Callable[[int, Progress], None],
    ) -> Iterator[GroupOutcome]:
        """Train the groups, as many at once as there are workers.

        Args:
            groups: Trials by the number of their group.
            report: Called from other threads with a group's progress.

        Yields:
            An outcome for each group, as it ends.
        """
        waiting: queue.Queue[tuple[int, Sequence[Trial]]] = queue.Queue()
        for entry in groups.items():
            waiting.put(entry)
        ended: queue.Queue[GroupOutcome] = queue.Queue()
        count = min(self.workers, len(groups))
        for place in range(count):
            arguments = (place, waiting, ended, report)
            threading.Thread(target=self._serve, args=arguments, daemon=True).start()
        for _ in groups:
            yield ended.get()

    def _serve(
        self,
        place: int,
        waiting: queue.Queue[tuple[int, Sequence[Trial]]],
        ended: queue.Queue[GroupOutcome],
        report: Callable[[int, Progress], None],
    ) -> None:
        with suppress(queue.Empty):
            while True:
                number, trials = waiting.get_nowait()
                request = {"group": [trial_to_json(trial) for trial in trials]}
                ended.put(self._outcome(place, number, request, report))

    def _outcome(
        self,
        place: int,
        number: int,
        request: dict[str, Any],
        report: Callable[[int, Progress], None],
    ) -> GroupOutcome:
        try:
            answer = self._worker(place).ask(request, lambda progress: report(number, progress))
            if "error" in answer:
                return GroupOutcome(number, None, answer["error"])
            return GroupOutcome(number, [result_from_json(entry) for entry in answer["results"]])
        except Exception as error:  # whatever a third party's proxy answers, the sweep goes on
            return GroupOutcome(number, None, f"the worker's answer cannot be used: {error!r}")

    def _worker(self, place: int) -> _Worker:
        worker = self._workers[place]
        if worker is not None and not worker.alive:
            worker.end()
        if worker is None or not worker.alive:
            worker = _Worker(self._job, self._devices[place], self._log)
            self._workers[place] = worker
        return worker


class _Worker:
    """One process of mixopt.sweeps.worker, and the pipe to it."""

    def __init__(self, job: Job, device: str | None, log: Path) -> None:
        environment = dict(os.environ)
        training = asdict(job.training)
        if device is None:
            environment.update(dict.fromkeys(ONE_THREAD, "1"))
        else:
            environment["CUDA_VISIBLE_DEVICES"] = device
            training["device"] = "cuda"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mixopt.sweeps.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
            )
        self._log = log
        setup = {"proxy": job.proxy, "options": job.options, "corpus": str(job.corpus)}
        self._send({"setup": {**setup, "training": training}})

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], report: Callable[[Progress], None]) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        self._send(request)
        stream = self._process.stdout
        for line in stream if stream is not None else ():
            answer: dict[str, Any] = json.loads(line)
            if "progress" not in answer:
                return answer
            report(Progress(*answer["progress"]))
        return {"error": self._end_of_process()}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _send(self, request: dict[str, Any]) -> None:
        stream = self._process.stdin
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.write(json.dumps(request) + "\n")
                stream.flush()

    def _end_of_process(self) -> str:
        code = self._process.wait()
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; out of memory?" if code == -signal.SIGKILL else ""
        return f"the worker ended with {name}{hint}; see {self._log}"


def _devices(device: str, workers: int | None) -> list[str | None]:
    """Return the GPU of each worker, or None for each that has a core."""
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
