"""Run a function in another process, and read its output while it runs.

Libraries in C end the whole process on some damaged files. Here that is the child's process, and
its end is told in words: "died with SIGSEGV". What a child gives crosses a pipe as bytes with
their length; nothing is unpickled. A child is kept for the next call, and one that died, or whose
caller stopped early, is replaced.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import IO, Any, NoReturn

from mixopt import errors
from mixopt.errors import MixoptError, RunError

_HEADER = struct.Struct("<cQ")  # kind and length of a message
_ITEMS, _ERROR, _FAILED, _END = b"i", b"e", b"f", b"."
_MOST_ITEMS, _MOST_BYTES = 256, 1 << 20  # of one message
_START = "from mixopt.system.child_process import serve; serve()"


def in_child(
    function: str, arguments: Mapping[str, Any], *, died: Callable[[str], MixoptError]
) -> Iterator[bytes]:
    """Give what a function yields, which runs in another process, in its order.

    Args:
        function: A generator of bytes, as `package.module:name`. The name is code: it never comes
            from data.
        arguments: What it is called with, by name; plain values as JSON has them.
        died: Makes the error to raise where the process ended or the function failed; it is given
            a half sentence such as "died with SIGSEGV".

    Raises:
        MixoptError: What the function raised, or the error that `died` makes.
        RunError: No process can be started.
    """
    child = _WAITING.take()
    whole = False
    try:
        child.call(function, arguments)
        while (message := child.receive(died))[0] == _ITEMS:
            yield from _unpacked(message[1])
        whole = True
        if message[0] != _END:
            _raise(message, died)
    finally:
        if whole:
            _WAITING.give_back(child)
        else:
            child.end()


def in_children(
    function: str,
    calls: Sequence[Mapping[str, Any]],
    workers: int,
    *,
    died: Callable[[int, str], MixoptError],
) -> Iterator[bytes]:
    """Give the one thing that a function yields, once for each call, several at a time.

    Args:
        function: As of `in_child`; what it yields last is its result.
        calls: What it is called with, once each; they are begun in this order.
        workers: How many processes work at once, >= 1.
        died: Makes the error to raise where a process ended or the function failed, of the call's
            position and half a sentence.

    Yields:
        Results in the order of the calls, whichever is ready first.

    Raises:
        MixoptError: What the function raised, or the error that `died` makes: that of the first
            call, in their order, that failed.
        RunError: No process can be started.
    """
    results: dict[int, bytes | MixoptError] = {}
    waiting = list(range(len(calls)))[::-1]
    running: dict[int, _Child] = {}
    with selectors.DefaultSelector() as selector:
        try:
            for place in range(len(calls)):
                while place not in results:
                    while waiting and len(running) < workers:
                        begun = waiting.pop()
                        running[begun] = _WAITING.take()
                        running[begun].call(function, calls[begun])
                        selector.register(running[begun].answers, selectors.EVENT_READ, begun)
                    for ready, _ in selector.select():
                        selector.unregister(ready.fileobj)
                        results[ready.data] = _result(running, ready.data, died)
                result = results.pop(place)
                if isinstance(result, MixoptError):
                    raise result
                yield result
        finally:
            for child in running.values():
                child.end()


def _result(
    running: dict[int, _Child], place: int, died: Callable[[int, str], MixoptError]
) -> bytes | MixoptError:
    """Take the result of a child that answers, or what it raised."""
    child, found = running[place], b""
    try:
        while (message := child.receive(partial(died, place)))[0] == _ITEMS:
            found = list(_unpacked(message[1]))[-1]
        if message[0] != _END:
            _raise(message, partial(died, place))
    except MixoptError as error:
        running.pop(place).end()
        return error
    _WAITING.give_back(running.pop(place))
    return found


def close_children() -> None:
    """End the processes that wait for the next call."""
    _WAITING.end()


def serve() -> None:
    """Answer the calls that arrive on standard input, until it is closed: what a child runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer, who then closes the pipe
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not an answer
    calls = sys.stdin.buffer
    while header := calls.read(_HEADER.size):
        call = json.loads(calls.read(_HEADER.unpack(header)[1]))
        try:
            _answer(call, answers)
        except BrokenPipeError:  # nobody reads any more
            os._exit(0)


class _Child:
    """A process that answers one call after the other."""

    def __init__(self) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            )  # fmt: skip
        except OSError as error:
            self._said.close()
            raise RunError(f"a process that reads files cannot be started: {error}") from error
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._calls, self._answers = self._process.stdin, self._process.stdout

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def answers(self) -> IO[bytes]:
        return self._answers

    def call(self, function: str, arguments: Mapping[str, Any]) -> None:
        call = {"function": function, "arguments": dict(arguments), "folder": _folder()}
        content = json.dumps(call).encode()
        try:
            self._calls.write(_HEADER.pack(b"c", len(content)) + content)
            self._calls.flush()
        except OSError:  # it died; `receive` says of what
            return

    def receive(self, died: Callable[[str], MixoptError]) -> tuple[bytes, bytes]:
        """Return the kind and content of the next message."""
        header = self._answers.read(_HEADER.size)
        if len(header) == _HEADER.size:
            kind, length = _HEADER.unpack(header)
            content = self._answers.read(length)
            if len(content) == length:
                return kind, content
        raise died(f"died with {self._death()}")

    def end(self) -> None:
        """End the process, whatever it does, and let go of its pipes."""
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Let go of the pipes."""
        for stream in (self._calls, self._answers, self._said):
            try:
                stream.close()
            except OSError:  # what was not yet written to a process that has ended
                continue

    def _death(self) -> str:
        """Return the signal or the exit code, and the last line that the process said."""
        code = self._process.wait()
        name = f"exit code {code}"
        if code < 0:
            name = _signal_name(-code)
        self._said.seek(0)
        lines = self._said.read()[-2_000:].decode("utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{name} ({last[:200]})" if last else name


class _Waiting:
    """The children that wait for the next call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: list[_Child] = []

    def take(self) -> _Child:
        with self._lock:
            while self._children:
                child = self._children.pop()
                if child.is_alive:
                    return child
                child.forget()
        return _Child()

    def give_back(self, child: _Child) -> None:
        with self._lock:
            if len(self._children) < _MOST_WAITING:
                self._children.append(child)
                return
        child.end()

    def end(self) -> None:
        with self._lock:
            children, self._children = self._children, []
        for child in children:
            child.end()

    def forget(self) -> None:
        """In a process that was forked: the children are the parent's, and so may the lock be."""
        self._lock = threading.Lock()
        for child in self._children:
            child.forget()
        self._children = []


_MOST_WAITING = 2
_WAITING = _Waiting()
atexit.register(_WAITING.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WAITING.forget)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _raise(message: tuple[bytes, bytes], died: Callable[[str], MixoptError]) -> NoReturn:
    """Raise what the child's function raised."""
    kind, content = message
    told = json.loads(content)
    known = getattr(errors, str(told["error"]), None)
    if kind == _ERROR and isinstance(known, type) and issubclass(known, MixoptError):
        raise known(told["message"])
    raise died(f"failed: {told['error']}: {told['message']}".rstrip(": "))


def _answer(call: Mapping[str, Any], answers: IO[bytes]) -> None:
    """Call the function, and send what it yields, its error or its end."""
    try:
        if call["folder"] is not None:
            os.chdir(call["folder"])
        module, _, name = call["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        items: list[bytes] = []
        size = 0
        try:
            for item in function(**call["arguments"]):
                items.append(item)
                size += len(item)
                if len(items) == _MOST_ITEMS or size >= _MOST_BYTES:
                    _send(answers, _ITEMS, _packed(items))
                    items, size = [], 0
        finally:  # what was given before an error comes before it
            if items:
                _send(answers, _ITEMS, _packed(items))
    except BrokenPipeError:
        raise
    except MixoptError as error:
        _send(answers, _ERROR, _told(error))
    except Exception as error:  # a library's; the caller names the file
        _send(answers, _FAILED, _told(error))
    else:
        _send(answers, _END, b"")


def _told(error: Exception) -> bytes:
    known = [kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__)]
    name = known[0] if isinstance(error, MixoptError) else type(error).__name__
    return json.dumps({"error": name, "message": _one_line(error)}).encode()


def _one_line(error: Exception) -> str:
    said = Exception.__str__(error) if isinstance(error, MixoptError) else str(error)
    return " ".join(said.split())[:4_000]


def _send(answers: IO[bytes], kind: bytes, content: bytes) -> None:
    answers.write(_HEADER.pack(kind, len(content)) + content)
    answers.flush()


def _packed(items: Sequence[bytes]) -> bytes:
    lengths = struct.pack(f"<Q{len(items)}Q", len(items), *map(len, items))
    return b"".join((lengths, *items))


def _unpacked(content: bytes) -> Iterator[bytes]:
    (count,) = struct.unpack_from("<Q", content)
    place = 8 * (count + 1)
    for length in struct.unpack_from(f"<{count}Q", content, 8):
        yield content[place : place + length]
        place += length
