"""An executor of somebody's own: a process a folder, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys

from mixopt.sweeps import Ended

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class OneByOne:
    """Starts the program for each folder."""

    poll, queues, outlives_owner, slots = 0.05, False, False, 1

    def __init__(self, site):
        self._processes = {}

    def start(self, folders):
        command = [sys.executable, "-P", "-m", "mixopt.sweeps.train_group"]
        for folder in map(str, folders):
            environment = os.environ | ONE_THREAD
            self._processes[folder] = subprocess.Popen([*command, folder], env=environment)
        return list(map(str, folders))

    def states(self, handles):
        codes = {handle: self._processes[handle].poll() for handle in handles}
        return {
            handle: "running" if code is None else Ended.with_code(code)
            for handle, code in codes.items()
        }

    def cancel(self, handles):
        for handle in handles:
            self._processes[handle].kill()
            self._processes[handle].wait()

    def close(self):
        for process in self._processes.values():
            process.wait()
