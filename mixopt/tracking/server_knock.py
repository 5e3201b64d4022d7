"""Knock at a server: whether it answers at all, before seconds are spent on importing MLflow."""

from __future__ import annotations

import ssl
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

KNOCK_SECONDS = 2.0
PORTS = {"http": 80, "https": 443}
# What is asked is the API's cheapest question; without a password it is answered, or refused.
QUESTION = "/api/2.0/mlflow/experiments/search", '{"max_results": 1}'
OVERLOADED, TOO_LARGE = 429, 413


def check_reachable(uri: str) -> None:
    """Knock at a server before seconds are spent on importing MLflow; not where a proxy is between.

    Raises:
        OSError: Nothing answers in time, or with nothing but errors.
    """
    address = urlsplit(uri)
    host = address.hostname
    if address.scheme not in PORTS or host is None:
        return
    if address.scheme in getproxies() and not proxy_bypass(host):
        return
    with closing(_connection(address.scheme, host, address.port)) as connection:
        path, body = QUESTION
        # Without user and password, so that it does not matter who answers.
        headers = {"Content-Type": "application/json"}
        connection.request("POST", address.path.rstrip("/") + path, body, headers)
        status = connection.getresponse().status
    if status >= 500 or status in (OVERLOADED, TOO_LARGE):
        raise OSError(f"answers with status {status}")


def _connection(scheme: str, host: str, port: int | None) -> HTTPConnection:
    port = port or PORTS[scheme]
    if scheme == "http":
        return HTTPConnection(host, port, timeout=KNOCK_SECONDS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # MLflow verifies
    return HTTPSConnection(host, port, timeout=KNOCK_SECONDS, context=context)
