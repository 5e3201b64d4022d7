"""An executor that trains one group after the other, in the process of one worker."""

from __future__ import annotations

from functools import partial

from mixopt.sweeps import GroupSizes, WorkerDevice, Workplace


class OneByOne:
    """Trains one group after the other."""

    workers = 1

    def __init__(self, job, site):
        log = site.folder / "workers.log"
        self._place = Workplace(job, WorkerDevice(), GroupSizes(site.folder), log, site.patience)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._place.end()

    def group_size(self):
        return self._place.group_size()

    def run(self, groups, report):
        done = set()
        while waiting := [number for number in groups if number not in done]:
            number = waiting[0]
            done.add(number)
            heard = partial(self._hear, report, number)
            yield self._place.train(number, groups[number], heard)

    def _hear(self, report, number, progress):
        report(number, progress, self._place.place)
