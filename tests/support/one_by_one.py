"""An executor of somebody's own: a process a folder, one after the other."""

import os
import subprocess
import sys

from mixopt.sweeps import Ended


class OneByOne:
    """Starts the program for each folder."""

    poll, queues, outlives_owner, slots = 0.05, False, False, 1

    def __init__(self, site):
        self._processes = {}

    def start(self, folders):
        command = [sys.executable, "-P", "-m", "mixopt.sweeps.train_group"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        started = {str(one): subprocess.Popen([*command, one], env=environment) for one in folders}
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
