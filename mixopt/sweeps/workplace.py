"""One place where groups train: a device, and the worker process that has it.

Executors on one machine, on nodes of Ray and in tasks of a scheduler all train through this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mixopt.errors import MixoptError
from mixopt.sweeps.contract import GroupOutcome, Job, Place
from mixopt.sweeps.devices import WorkerDevice
from mixopt.sweeps.group_sizes import GroupSizes
from mixopt.sweeps.messages import Answer
from mixopt.sweeps.worker_process import WorkerProcess
from mixopt.trials import Progress, Trial, TrialResult, result_from_json, trial_to_json


class Workplace:
    """Trains one group at a time; starts a worker when there is work, and another if it dies."""

    def __init__(
        self, job: Job, device: WorkerDevice, sizes: GroupSizes, log: Path, patience: float
    ) -> None:
        """Note what there is; no process is started yet.

        Args:
            job: What all groups share; `corpus` is a path that this machine sees.
            device: What the worker has.
            sizes: How many trials each kind of device trains together.
            log: File that the worker's standard error goes to.
            patience: Seconds without a sign of life or progress after which it is killed.
        """
        self._job, self._device, self._sizes = job, device, sizes
        self._log, self._patience = log, patience
        self._worker: WorkerProcess | None = None
        self._starting, self._closed = threading.Lock(), False

    @property
    def place(self) -> Place:
        """Where it is."""
        return self._device.place

    def group_size(self) -> int:
        """Return how many trials it trains together at best; asked of a worker once a kind.

        Raises:
            MixoptError: The proxy cannot be built, or refuses the corpus; or two workers died.
        """
        return self._sizes.measure(self._device.kind, self._measured)

    def train(
        self, number: int, trials: Sequence[Trial], report: Callable[[Progress], None]
    ) -> GroupOutcome:
        """Train a group, or as many of its first trials as go together here.

        Args:
            number: Of the group.
            trials: Its members.
            report: Called with its progress.

        Returns:
            What became of it.
        """
        start = time.monotonic()
        kind = self._device.kind
        # A group is handed out in the size of the largest kind; another kind takes a part.
        size = self._sizes[kind] if kind in self._sizes else len(trials)
        members = trials[:size]
        results, answer = self._trained(members, report)
        if answer.fault == "memory" and not self._closed:  # not killed by `end`
            self._sizes.short_of_memory(kind, len(members))
        return GroupOutcome(
            number,
            results,
            answer.error,
            answer.fault,
            self.place,
            time.monotonic() - start,
            len(members),
        )

    def end(self) -> None:
        """End the worker; it starts no other."""
        with self._starting:
            self._closed = True
        if self._worker is not None:
            self._worker.end()

    def _trained(
        self, members: Sequence[Trial], report: Callable[[Progress], None]
    ) -> tuple[list[TrialResult], Answer]:
        """Return the results, and the answer, which gives the reason where there are none."""
        try:
            answer = self._ask({"group": [trial_to_json(trial) for trial in members]}, report)
            results = [result_from_json(entry) for entry in answer.results or ()]
        except Exception as error:  # whatever a third party's proxy answers, the sweep continues
            return [], Answer(error=f"the worker's answer cannot be used: {error!r}")
        if answer.error is not None:
            return [], answer
        if answer.results is None:
            return [], Answer(error="the worker's answer cannot be used: no results")
        if [result.trial for result in results] != [trial.name for trial in members]:
            reason = "the proxy returned results of other trials than it was given"
            return [], Answer(error=reason)
        return results, answer

    def _measured(self) -> int:
        """Ask a worker for the size; another if that one dies."""
        answer = self._ask({"tune": True}, lambda _: None)
        if answer.fault is not None:
            answer = self._ask({"tune": True}, lambda _: None)
        if answer.tuned is None:
            raise MixoptError(answer.error or "the worker's answer cannot be used: no size")
        return answer.tuned

    def _ask(self, request: dict[str, Any], report: Callable[[Progress], None]) -> Answer:
        worker = self._started()
        answer = worker.ask(request, report)
        if answer.fault is not None:
            worker.end()  # what it still holds of the memory goes with it
        return answer

    def _started(self) -> WorkerProcess:
        with self._starting:
            if self._closed:
                raise MixoptError("the sweep has ended")
            if self._worker is not None and not self._worker.alive:
                self._worker.end()
            if self._worker is None or not self._worker.alive:
                self._worker = WorkerProcess(self._job, self._device, self._log, self._patience)
            return self._worker
