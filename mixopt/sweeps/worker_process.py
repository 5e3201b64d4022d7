"""One process of mixopt.sweeps.worker, and the pipe to it; one that hangs is killed.

Nothing here waits for a worker without end: its lines come through a thread of their own, a
request is written by another, since a stopped worker reads nothing, and what is waited for is
looked at now and then (mixopt.sweeps.watch).
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from mixopt.errors import RunError
from mixopt.sweeps.contract import Job
from mixopt.sweeps.devices import WorkerDevice
from mixopt.sweeps.messages import Answer, Fault, broken_answer, read_message
from mixopt.sweeps.watch import Watch
from mixopt.trials import Progress

LONGEST_LINE = 1 << 28  # bytes
LAST_WORDS = 1.0  # seconds for what a process wrote before it died to be read
DYING = 10.0  # seconds until a killed process is left to the kernel
KILLED_FOR_MEMORY = (-signal.SIGKILL, 128 + signal.SIGKILL)  # the second of a shell or container


class WorkerProcess:
    """A worker, asked for one thing at a time."""

    def __init__(self, job: Job, device: WorkerDevice, log: Path, patience: float) -> None:
        training = asdict(job.training)
        if device.gpus:
            training["device"] = "cuda"
        self._log, self._watch = log, Watch(patience)
        self._every = min(1.0, patience / 10)
        self._process, self._ended = _start(device.environment(), log), False
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        setup: dict[str, Any] = {"proxy": job.proxy, "options": job.options}
        setup |= {"corpus": str(job.corpus), "corpus_hash": job.corpus_hash, "verify": job.verify}
        self._unsent = _line({"setup": {**setup, "training": training, "beat": self._every}})

    @property
    def alive(self) -> bool:
        """Whether the process runs, or is stopped."""
        return not self._ended and self._process.poll() is None

    def ask(self, request: dict[str, Any], report: Callable[[Progress], None]) -> Answer:
        """Send one request and wait for its answer, as long as the worker moves on.

        Args:
            request: What mixopt.sweeps.worker takes.
            report: Called with what the worker does.

        Returns:
            The answer; where there is none, the reason in its place, with whether another worker
            may have one.
        """
        self._watch.begin()
        self._send(request)
        try:
            while True:
                answer = self._look(report)
                if answer is not None:
                    return answer
        except BaseException:
            self.end()  # its answer would be taken for that of the next request
            raise

    def end(self) -> None:
        """Kill the process, stopped or not."""
        self._ended = True
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(DYING)
        self._reader.join(LAST_WORDS)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def _look(self, report: Callable[[Progress], None]) -> Answer | None:
        """Take the next line, if one comes soon; return the answer, or why there will be none."""
        line = self._next_line()
        if line is None:
            return self._end_of_process()
        answer = self._take(line, report) if line else None
        reason = None if answer is not None else self._watch.overdue()
        if reason is None:
            return answer
        self.end()
        return Answer(error=f"{reason}; see {self._log}", fault="died")

    def _next_line(self) -> bytes | None:
        """Return a line; an empty one where none came in time, None where none will come."""
        with suppress(queue.Empty):
            return self._lines.get(timeout=self._every)
        if self.alive:
            return b""
        with suppress(queue.Empty):  # a child of it may hold the pipe open
            return self._lines.get(timeout=LAST_WORDS)
        return None

    def _take(self, line: bytes, report: Callable[[Progress], None]) -> Answer | None:
        """Return the answer that a line is; of a heartbeat, take note."""
        try:
            message = read_message(line)
        except RunError as error:
            self.end()  # what else is in the pipe is not to be believed
            return broken_answer(error)
        if isinstance(message, Answer):
            return message
        self._watch.hear(message)
        report(Progress(message.done, message.total, message.doing))
        return None

    def _send(self, request: dict[str, Any]) -> None:
        content, self._unsent = self._unsent + _line(request), b""
        threading.Thread(target=self._write, args=(content,), daemon=True).start()

    def _write(self, content: bytes) -> None:
        stream = self._process.stdin
        if stream is not None:
            with suppress(OSError, ValueError):  # it is dead, or closed: the answer will tell
                stream.write(content)
                stream.flush()

    def _read(self) -> None:
        stream: IO[bytes] | None = self._process.stdout
        if stream is not None:
            with stream:
                while line := stream.readline(LONGEST_LINE):
                    if line.endswith(b"\n"):  # else it died while it wrote
                        self._lines.put(line)
                    elif len(line) == LONGEST_LINE:
                        self._lines.put(b"more than is read of a line\n")
                        break
        self._lines.put(None)

    def _end_of_process(self) -> Answer:
        """Return why there is no answer."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_WORDS)
        code = self._process.returncode
        self.end()
        if code is None:
            error = f"the worker closed its pipe, and was killed; see {self._log}"
            return Answer(error=error, fault="died")
        name = f"signal {_signal(-code)}" if code < 0 else f"exit code {code}"
        fault: Fault = "memory" if code in KILLED_FOR_MEMORY else "died"
        hint = "; out of memory?" if fault == "memory" else ""
        return Answer(error=f"the worker ended with {name}{hint}; see {self._log}", fault=fault)


def _start(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "mixopt.sweeps.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )


def _line(message: dict[str, Any]) -> bytes:
    return (json.dumps(message) + "\n").encode()


def _signal(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return str(number)
