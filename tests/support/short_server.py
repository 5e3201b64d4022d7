"""An HTTP server on 127.0.0.1 that breaks off in the middle of an object, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from odd_servers import serving


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        """Say how long the object is, or do not where its name has no size."""
        self.send_response(200)
        if "unsized" not in self.path:
            self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_GET(self) -> None:
        """Send half of what was said."""
        self.do_HEAD()
        self.wfile.write(b"x" * 500)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def short_server() -> Iterator[str]:
    """Give the address of a server that breaks off."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), _Handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"
