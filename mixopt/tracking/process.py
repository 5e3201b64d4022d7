"""The process that sends a run's record to MLflow: `python -m mixopt.tracking.process`.

It looks at the run directory every two seconds, and sends what is new (mixopt.tracking.recorder). A
server that is down or too slow is tried again after 1, 2, 4 ... 30 seconds. When standard input
ends, with the training process finished or killed, it sends what is left, closes the runs, and
ends; where that fails, what is left stays on disk for the next one.

Its argument is the run directory. The first line of its standard input is `{uri, experiment, own}`
as JSON, with the password of the server: an argument is seen by everybody on the machine. It
answers with lines of JSON: a sign of life, a warning, and at the end what was sent and what is
left. None of them has the password, nor has what it or MLflow writes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixopt.errors import MixoptError, RunError
from mixopt.system import ServerUri, only_one, without_secrets
from mixopt.tracking.database import PREFIX, database_file, first_use
from mixopt.tracking.record import RECORD
from mixopt.tracking.recorder import Recorder
from mixopt.tracking.sender_settings import ARTIFACTS, LOCAL, LOCK, LOG, take_settings
from mixopt.tracking.sent_files import check_own
from mixopt.tracking.server_knock import TOO_LARGE, check_reachable

if TYPE_CHECKING:
    from mixopt.tracking.mlflow_store import MlflowStore

NICENESS = 5  # how much this process gives way to training on the same cores
EVERY_SECONDS = 2.0
LONGEST_PAUSE = 30.0
LOCK_SECONDS = 30.0

Answer = Callable[[dict[str, Any]], None]


class Sender:
    """Sends until the training process is gone; whatever goes wrong is a warning."""

    def __init__(
        self, path: Path, uri: str | None, experiment: str, answer: Answer, *, own: bool = False
    ) -> None:
        """Prepare.

        Args:
            path: The run directory.
            uri: Server or database; one in the run directory when None.
            experiment: Name of the experiment.
            answer: Receives signs of life and warnings.
            own: Whether no file may leave the run directory, whatever the database says.
        """
        name = ServerUri(LOCAL if uri is None else uri)
        self._uri = name.login() if uri else ServerUri(f"{PREFIX}{path.resolve() / LOCAL}").login()
        self._within = path if own or uri is None else None
        self._experiment, self._answer = experiment, answer
        self._parent, self._too_large = os.getppid(), False
        self._path, self.name = path, str(name)
        self.recorder = Recorder(path, name.address, self._connect, self._alive)

    def run(self, ended: threading.Event) -> None:
        """Send what is new, again and again; once more when the training process has ended."""
        failures = 0
        while True:
            last = ended.is_set() or os.getppid() != self._parent
            if last:
                self.recorder.kill()
            failures = 0 if self.attempt() else failures + 1
            if last and self._too_large and self.recorder.can_send_less:
                continue
            if last or (failures and ended.is_set()):
                return
            ended.wait(min(2.0 ** (failures - 1), LONGEST_PAUSE) if failures else EVERY_SECONDS)

    def attempt(self) -> bool:
        """Send what is new; say it in a line where that fails."""
        self._too_large = False
        try:
            self.recorder.send()
        except Exception as error:
            self._too_large = f"code {TOO_LARGE}" in str(error)
            lines = str(error).strip().splitlines() or [""]
            shown = without_secrets(lines[0], self._uri.secrets)[:300]
            said = f"{self.name}: {type(error).__name__}: {shown}"
            sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {said}\n")
            self._answer({"warning": said})
            return False
        finally:
            for line in self.recorder.refused():
                self._answer({"warning": line})
        return True

    def _alive(self) -> None:
        self._answer({"alive": True, "sent": asdict(self.recorder.sent)})

    def _connect(self) -> MlflowStore:
        uri = self._uri.uri
        file = database_file(uri)
        if self._within is not None and file is not None:
            check_database(self._within, file)
        check_reachable(uri)
        with _signs_of_life(self._alive):
            from mixopt.tracking.mlflow_store import MlflowStore
        if file is None:  # a server that hangs gives no sign of life
            return MlflowStore(uri, self._experiment, None)
        with _signs_of_life(self._alive), first_use(uri):
            return MlflowStore(uri, self._experiment, file.parent / ARTIFACTS, self._within)


def check_database(directory: Path, file: Path) -> None:
    """Check that a database, its files beside it and its artifacts are in a run directory.

    Raises:
        RunError: One of them leads out, or the database is a folder: MLflow would try for minutes.
    """
    if file.exists() and not file.is_file():
        raise RunError(f"{file}: is not a file; delete it")
    beside = file.resolve().parent
    if not beside.is_relative_to(directory.resolve()):
        raise RunError(f"{directory}: its database {file} is outside this folder")
    folder = beside.relative_to(directory.resolve())
    names = [f"{file.name}{end}" for end in ("", ".lock", "-wal", "-shm", "-journal")]
    check_own(directory, *(str(folder / name) for name in (*names, ARTIFACTS)))


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
def _alone(path: Path) -> Iterator[None]:
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
            time.sleep(0.2)
        yield


def _listen(ended: threading.Event) -> None:
    """Wait for a line or the end; a process forked from the training may hold the pipe open."""
    sys.stdin.readline()
    ended.set()


def main() -> None:
    """Send until standard input ends."""
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    # MLflow prints links; answers go where nothing else is printed.
    answers = sys.stdout

    def answer(message: dict[str, Any]) -> None:
        with suppress(OSError):
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    path, ended = Path(sys.argv[1]), threading.Event()
    try:
        settings = take_settings()
        sys.stdout = sys.stderr
        threading.Thread(target=_listen, args=(ended,), daemon=True).start()
        check_own(path, LOCK, LOG, RECORD, "tracking.json", "tracking.jsonl")
        with _alone(path):
            sender = Sender(path, settings.uri, settings.experiment, answer, own=settings.own)
            sender.run(ended)
            recorder = sender.recorder
            answer({"sent": asdict(recorder.sent), "left": asdict(recorder.left()), "done": True})
    except MixoptError as error:
        answer({"warning": without_secrets(str(error)), "done": True})


if __name__ == "__main__":
    main()
