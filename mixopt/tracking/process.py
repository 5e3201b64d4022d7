"""The process that sends a run's record to MLflow: `python -m mixopt.tracking.process`.

It looks at the run directory every two seconds, and sends what is new (mixopt.tracking.recorder). A
server that is down or too slow is tried again after 1, 2, 4 ... 30 seconds. When standard input
ends, with the training process finished or killed, it sends what is left, closes the runs, and
ends; where that fails, what is left stays on disk for the next one.

Its arguments are the run directory, and `{uri, experiment}` as JSON. It answers with lines of JSON:
a sign of life, a warning, and at the end what was sent and what is left.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from mixopt.errors import RunError
from mixopt.system import only_one
from mixopt.tracking.database import PREFIX, database_file, first_use
from mixopt.tracking.recorder import Recorder

if TYPE_CHECKING:
    from mixopt.tracking.mlflow_store import MlflowStore

# For this process alone, and only where the user has not said otherwise: a dead server is
# given up at once (MLflow's own: 249 s), nothing is reported to third parties, and there are no
# bars in the log.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
LOCAL, LOCK = "mlflow.db", "tracking.lock"
NICENESS = 5  # how much this process gives way to training on the same cores
EVERY_SECONDS = 2.0
LONGEST_PAUSE = 30.0
LOCK_SECONDS = 30.0
KNOCK_SECONDS = 5.0
PORTS = {"http": 80, "https": 443}

Answer = Callable[[dict[str, Any]], None]


class Sender:
    """Sends until the training process is gone; whatever goes wrong is a warning."""

    def __init__(self, path: Path, uri: str | None, experiment: str, answer: Answer) -> None:
        """Prepare.

        Args:
            path: The run directory.
            uri: Server or database; one in the run directory when None.
            experiment: Name of the experiment.
            answer: Receives signs of life and warnings.
        """
        self._uri = uri or f"{PREFIX}{path.resolve() / LOCAL}"
        self._experiment, self._answer = experiment, answer
        self._parent = os.getppid()
        self.name = uri or LOCAL
        self.recorder = Recorder(path, self.name, self._connect, self._alive)

    def run(self, ended: threading.Event) -> None:
        """Send what is new, again and again; once more when the training process has ended."""
        failures = 0
        while True:
            last = ended.is_set() or os.getppid() != self._parent
            if last:
                self.recorder.kill()
            failures = 0 if self.attempt() else failures + 1
            if last or (failures and ended.is_set()):
                return
            ended.wait(min(2.0 ** (failures - 1), LONGEST_PAUSE) if failures else EVERY_SECONDS)

    def attempt(self) -> bool:
        """Send what is new; say it in a line where that fails."""
        try:
            self.recorder.send()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            said = f"{self.name}: {type(error).__name__}: {lines[0][:160]}"
            sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}\n")
            self._answer({"warning": said})
            return False
        return True

    def _alive(self) -> None:
        self._answer({"alive": True})

    def _connect(self) -> MlflowStore:
        check_reachable(self._uri)
        with _signs_of_life(self._alive):
            from mixopt.tracking.mlflow_store import MlflowStore

            file = database_file(self._uri)
            with first_use(self._uri):
                kept = None if file is None else file.parent / "mlartifacts"
                return MlflowStore(self._uri, self._experiment, kept)


def check_reachable(uri: str) -> None:
    """Knock at a server before seconds are spent on importing MLflow; not where a proxy is between.

    Raises:
        OSError: Nothing answers.
    """
    address = urlsplit(uri)
    host = address.hostname
    if address.scheme not in PORTS or host is None:
        return
    if address.scheme in getproxies() and not proxy_bypass(host):
        return
    port = address.port or PORTS[address.scheme]
    socket.create_connection((host, port), timeout=KNOCK_SECONDS).close()


@contextmanager
def _signs_of_life(alive: Callable[[], None]) -> Iterator[None]:
    """Answer while MLflow is imported, which takes a loaded machine half a minute."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(2):
            alive()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _alone(path: Path, alive: Callable[[], None]) -> Iterator[None]:
    """Be the only one that sends of a run directory; one that is at its end is waited for.

    Raises:
        RunError: Another one is at work there.
    """
    until = time.monotonic() + LOCK_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(only_one(path, LOCK))
                break
            except RunError:
                if time.monotonic() > until:
                    raise
            alive()
            time.sleep(0.2)
        yield


def _listen(ended: threading.Event) -> None:
    """Wait for a line or the end; a process forked from the training may hold the pipe open."""
    sys.stdin.readline()
    ended.set()


def main() -> None:
    """Send until standard input ends."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    # MLflow prints links; answers go where nothing else is printed.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(message: dict[str, Any]) -> None:
        with suppress(OSError):
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    path, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    ended = threading.Event()
    threading.Thread(target=_listen, args=(ended,), daemon=True).start()
    try:
        with _alone(path, lambda: answer({"alive": True})):
            sender = Sender(path, settings["uri"], settings["experiment"], answer)
            sender.run(ended)
            recorder = sender.recorder
            answer({"sent": asdict(recorder.sent), "left": asdict(recorder.left()), "done": True})
    except RunError as error:
        answer({"warning": str(error), "done": True})


if __name__ == "__main__":
    main()
