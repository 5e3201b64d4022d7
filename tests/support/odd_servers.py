"""HTTP servers on 127.0.0.1 that hang, refuse, or answer with a status alone, for tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class OddServer(ThreadingHTTPServer):
    """Answers every request with a status, or not at all; keeps what was asked."""

    daemon_threads = True

    def __init__(self, status: int | None, *, hello: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.hello = status, hello
        self.asked: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: OddServer

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        status = self.server.status
        if self.server.hello and self.path.endswith("/experiments/search"):
            status = 200
        if status is None:
            self.server.closing.wait(60)
            return
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = do_PATCH = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def odd_server(status: int | None, *, hello: bool = False) -> Iterator[OddServer]:
    """Give a server.

    Args:
        status: What it answers; None where it hangs.
        hello: Whether it answers well when it is knocked at.
    """
    with serving(OddServer(status, hello=hello)) as server:
        try:
            yield server
        finally:
            server.closing.set()


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[Any]:
    """Have a server serve in a thread while the block runs."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
