"""A loop that logs to a run of MLflow, for tests of the record."""

import time

from mixopt.config import TrackingConfig
from mixopt.system import silent
from mixopt.tracking import Tracker
from mixopt.tracking.record import append_line


class RunLog:
    """Writes lines of metrics, which a tracker follows."""

    def __init__(self, path, experiment, uri=None, warn=silent, *, sends=True):
        config = TrackingConfig(uri=uri, experiment=experiment)
        self.path, self.tracker = path, Tracker(config, experiment, path, warn, sends=sends)
        self.tracker.start("log", {}, name=path.name)
        self.tracker.add("log", lines=["metrics.jsonl"])

    def log(self, metrics, step):
        append_line(self.path / "metrics.jsonl", {"step": step, "time": time.time(), **metrics})

    def close(self):
        self.tracker.end("log")
        self.tracker.__exit__(None)


def wait_for(condition):
    """Wait until a condition holds, for four minutes at most."""
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
