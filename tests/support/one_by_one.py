"""An executor of somebody's own: a process a folder, one after the other."""

import os
import subprocess
import sys

from mixopt.errors import RunError
from mixopt.sweeps import Ended


class OneByOne:
    """Starts the program for each folder."""

    poll, queues, outlives_owner, slots = 0.05, False, False, 1

    def __init__(self, site):
        self._processes = {}

    def start(self, folders):
        command = [sys.executable, "-P", "-m", "mixopt.sweeps.train_group"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        started = {str(f): subprocess.Popen([*command, f], env=environment) for f in folders}
        self._processes |= started
        return list(started)

    def states(self, handles):
        codes = {handle: self._processes[handle].poll() for handle in handles}
        return {
            h: "running" if code is None else Ended.with_code(code) for h, code in codes.items()
        }

    def cancel(self, handles):
        for handle in handles:
            self._processes[handle].kill()
            self._processes[handle].wait()

    def close(self):
        for process in self._processes.values():
            process.wait()


class Outliving(OneByOne):
    """Its tasks outlive their owner, and a broken queue stops none of them."""

    outlives_owner = True

    def __init__(self, site, queue="short"):
        super().__init__(site)
        self._folder, self._queue = site.folder, queue

    def states(self, handles):
        return dict.fromkeys(handles, "running")

    def cancel(self, handles):
        if self._queue == "broken":
            raise RunError("scancel: job 12 is not yours")
        (self._folder / "cancelled").write_text(" ".join(handles))
