"""A port in front of a server that opens and closes at once, where a real server takes seconds."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Gate:
    """Passes connections on to a server while it is open, and breaks them off when it closes."""

    def __init__(self, port: int, behind: int) -> None:
        self._port, self._behind = port, behind
        self._listener: socket.socket | None = None
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Take connections; nothing where it is open already."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._begin(self._accept, self._listener)

    def close(self) -> None:
        """Refuse new connections and break off those that there are, answered or not."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        _end(listener)
        self._threads[0].join()  # so that nothing is accepted any more
        for one in self._sockets:
            _end(one)
        for thread in self._threads:
            thread.join()
        self._sockets, self._threads = [], []

    def _begin(self, job, *arguments) -> None:
        thread = threading.Thread(target=job, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                self._sockets.append(client)
                server = socket.create_connection(("127.0.0.1", self._behind))
                self._sockets.append(server)
                self._begin(_pass_on, client, server)
                self._begin(_pass_on, server, client)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
