"""A loop that logs to a run of MLflow, and what tests start as processes of their own.

senders DIR URI COUNT      COUNT processes send from a directory each, all at once
watched DIR                log 20 steps, and print imports of MLflow and sockets
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from mixopt.config import TrackingConfig
from mixopt.system import silent
from mixopt.tracking import Tracker
from mixopt.tracking.record import JOURNAL, WantedRun, append_line


class RunLog:
    """Writes lines of metrics, which a tracker follows."""

    def __init__(self, path, experiment, uri=None, warn=silent, *, sends=True):
        config = TrackingConfig(uri=uri, experiment=experiment)
        self.path, self.tracker = path, Tracker(config, experiment, path, warn, sends=sends)
        self.tracker.start("log", {}, name=path.name)
        self.tracker.add("log", lines="metrics.jsonl")

    def log(self, metrics, step):
        append_line(self.path / "metrics.jsonl", {"step": step, "time": time.time(), **metrics})

    def close(self):
        self.tracker.end("log")
        self.tracker.__exit__(None)


def wait_for(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def senders(path, uri, count):
    """Fork when MLflow is imported, which takes seconds, and before it has opened anything."""
    import mlflow.tracking  # noqa: F401

    children = []
    for number in range(int(count)):
        child = os.fork()
        if child == 0:
            os._exit(0 if _sent(path / str(number), uri) else 1)
        children.append(child)
    sys.stdout.write(f"{[os.waitpid(child, 0)[1] for child in children]}\n")


def _sent(path, uri):
    from mixopt.tracking.sender import Sender

    wanted = WantedRun("log", None, "toy", path.name, 0, lines="metrics.jsonl")
    append_line(path / JOURNAL, asdict(wanted))
    sender = Sender(path, uri)
    good = True
    for step in range(5):
        metrics = {f"metric/{n}": step * n for n in range(20)}
        append_line(path / "metrics.jsonl", {"step": step, "time": 1.0, **metrics})
        good = sender.attempt(last=False) is None and good
    return good


def watched(path):
    """Print which imports of MLflow and which sockets there are while a run is tracked."""
    seen = {"imports": [], "sockets": []}

    def audit(event, arguments):
        if event == "import" and str(arguments[0]).partition(".")[0] == "mlflow":
            seen["imports"].append(arguments[0])
        if event.startswith("socket."):
            seen["sockets"].append(event)

    sys.addaudithook(audit)
    log = RunLog(path, experiment="toy", uri="http://127.0.0.1:9", sends=False)
    for step in range(20):
        log.log({"loss": 1 / (step + 1)}, step)
    log.close()
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    job, folder, *others = sys.argv[1:]
    globals()[job](Path(folder), *others)
