"""Run groups of trials on this machine: one worker process a core, or a GPU, one thread each.

Small models do not fill a team of threads, and a team on shared cores waits for its slowest
member; processes do neither. A worker that dies or hangs takes its own group along and no other:
the group is handed back with the reason, and another worker takes its place.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from mixopt.sweeps.contract import GroupOutcome, Job, Place, Report, Site
from mixopt.sweeps.devices import worker_devices
from mixopt.sweeps.group_sizes import GroupSizes
from mixopt.sweeps.worker_logs import LOGS
from mixopt.sweeps.workplace import Workplace
from mixopt.trials import Progress, Trial

_Waiting = queue.SimpleQueue[tuple[int, Sequence[Trial]] | None]


class LocalExecutor:
    """Worker processes on this machine.

    Use as a context manager; leaving it ends the workers.
    """

    def __init__(self, job: Job, site: Site) -> None:
        """Find the devices; no process is started yet, the first work does.

        Args:
            job: What all groups share.
            site: Where the sweep is owned.
        """
        devices = worker_devices(job.training.device, site.workers, site.gpus, site.say)
        self._sizes, logs = GroupSizes(site.folder), site.folder / LOGS
        self._places = [
            Workplace(job, device, self._sizes, logs / f"worker-{number}.log", site.patience)
            for number, device in enumerate(devices, start=1)
        ]
        self._closed = False

    @property
    def workers(self) -> int:
        """How many groups train at once."""
        return len(self._places)

    def __enter__(self) -> LocalExecutor:
        """Begin; no process is started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        self._closed = True
        for place in self._places:
            place.end()

    def group_size(self) -> int:
        """Ask a worker of each kind of device how many trials it trains together at best.

        Raises:
            MixoptError: The proxy cannot be built, or refuses the corpus; or two workers died.
        """
        by_kind = {place.place.kind: place for place in reversed(self._places)}
        return max(place.group_size() for place in by_kind.values())

    def run(self, groups: Mapping[int, Sequence[Trial]], report: Report) -> Iterator[GroupOutcome]:
        """Train the groups, as many at once as there are workers.

        Args:
            groups: Trials by the number of their group. Between two outcomes more may be added,
                such as what is left of a group whose worker died; they are trained as well.
            report: Called from other threads with a group's progress and its place.

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
                    serve = (self._places[place], waiting, ended, report)
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
        place: Workplace,
        waiting: _Waiting,
        ended: queue.SimpleQueue[GroupOutcome],
        report: Report,
    ) -> None:
        while (entry := waiting.get()) is not None and not self._closed:
            ended.put(place.train(*entry, partial(_report_at, report, entry[0], place.place)))


def _report_at(report: Report, number: int, place: Place, progress: Progress) -> None:
    report(number, progress, place)
