"""What the tests of tracking start as processes of their own.

senders DIR URI COUNT      COUNT processes send from a directory each, all at once
watched DIR                log 20 steps, and print what this process did for it beside writing
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from run_log import RunLog

from mixopt.tracking.record import JOURNAL, LineFile, WantedRun


def senders(path: Path, uri: str, count: int) -> None:
    """Fork when MLflow is imported, which takes seconds, and before it has opened anything."""
    import mlflow.tracking  # noqa: F401

    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            os._exit(0 if _sent(path / str(number), uri) else 1)
        children.append(child)
    sys.stdout.write(f"{[os.waitpid(child, 0)[1] for child in children]}\n")


def _sent(path: Path, uri: str) -> bool:
    from mixopt.tracking.sender import Sender

    journal, lines = LineFile(path / JOURNAL), LineFile(path / "metrics.jsonl")
    wanted = WantedRun("log", None, "toy", path.name, 0, lines=["metrics.jsonl"])
    journal.append(asdict(wanted))
    sender = Sender(path, uri, "toy", own=False)
    good = True
    for step in range(5):
        lines.append({"step": step, "time": 1.0, **{f"metric/{n}": step * n for n in range(20)}})
        good = sender.attempt(last=False) and good
    return good


def watched(path: Path) -> None:
    """Note imports of MLflow, sockets, and the calls of the system inside each `log`."""
    seen = {"imports": [], "sockets": [], "waits": [], "writes": []}

    def audit(event: str, arguments: tuple) -> None:
        if event == "import" and str(arguments[0]).partition(".")[0] == "mlflow":
            seen["imports"].append(arguments[0])
        if event.startswith("socket."):
            seen["sockets"].append(event)

    def profile(frame, event: str, function) -> None:
        if event != "c_call" or getattr(function, "__module__", None) not in {"posix", "time"}:
            return
        if function.__name__ == "write":
            seen["writes"][-1] += 1
        elif function.__name__ not in {"time", "monotonic"}:
            seen["waits"].append(function.__name__)

    sys.addaudithook(audit)
    log = RunLog(path, experiment="toy", uri="http://127.0.0.1:9")
    log.log({"loss": 1.0}, 0)  # the file is made
    for step in range(1, 21):
        seen["writes"].append(0)
        sys.setprofile(profile)
        log.log({"loss": 1 / step}, step)
        sys.setprofile(None)
    log.close()
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    if sys.argv[1] == "watched":
        watched(Path(sys.argv[2]))
    else:
        senders(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
