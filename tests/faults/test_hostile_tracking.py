"""A foreign run directory sends nothing, a password is seen nowhere, no server holds a run up.

Real processes and HTTP servers; what is sent is what the servers were asked.
"""

import base64
import json
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from odd_servers import serving
from ranks import free_port
from tracking_job import RunLog, wait_for

from mixopt.tracking import sync
from mixopt.tracking.record import JOURNAL, read_points

pytest.importorskip("mlflow")

WORD = "s3cret-w0rd"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No server is named by the environment."""
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


@contextmanager
def odd_server(status: int | None, *, hello: bool = False):
    """Give a server that answers with a status or hangs; with `hello`, a first request succeeds."""
    requests, closing = [], threading.Event()

    def answer(request):
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        requests.append((request.path, request.headers.get("Authorization")))
        knocked = hello and request.path.endswith("/experiments/search")
        if status is None:
            closing.wait(60)
            return
        request.send_response(200 if knocked else status)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"{}")

    with serving(answer) as address:
        try:
            yield SimpleNamespace(address=address, requests=requests)
        finally:
            closing.set()


def command_lines() -> str:
    """Return the arguments of all processes of this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            found.append((entry / "cmdline").read_bytes() if entry.name.isdigit() else b"")
        except OSError:
            continue
    return b"\n".join(found).decode(errors="replace")


def assert_nowhere(folder: Path, *texts: str) -> None:
    files = (file for file in folder.rglob("*") if file.is_file())
    assert [file for file in files if WORD.encode() in file.read_bytes()] == []
    assert [text for text in texts if WORD in text] == []


def test_a_password_reaches_the_server_and_nothing_else(tmp_path, capfd):
    run, warnings = tmp_path / "run", list[str]()
    with odd_server(500, hello=True) as server:
        uri = f"http://somebody:{WORD}@{server.address}"
        log = RunLog(run, experiment="toy", uri=uri, warn=warnings.append)
        log.log({"loss": 1.0}, 0)
        wait_for(lambda: len(server.requests) > 1)
        seen = command_lines()
        assert f"mixopt.tracking.sender\0{run}" in seen
        log.close()
        login = "Basic " + base64.b64encode(f"somebody:{WORD}".encode()).decode()
        assert {given for _, given in server.requests} == {login}
    (opened, *_) = map(json.loads, (run / JOURNAL).read_text().splitlines())
    assert opened["server"] == f"http://***@{server.address}"
    assert len(warnings) == 1
    assert warnings[0].startswith(f"tracking: http://***@{server.address}: ")
    assert f"mixopt sync {run} --uri http://{server.address} with MLFLOW" in warnings[0]
    assert_nowhere(run, seen, *warnings, *capfd.readouterr())
    assert (run / "tracking.log").stat().st_mode & 0o777 == 0o600


def test_a_password_of_a_database_is_in_no_file_and_no_message(tmp_path):
    run, warnings = tmp_path / "run", list[str]()
    uri = f"postgresql://somebody:{WORD}@127.0.0.1:{free_port()}/db?password={WORD}"
    log = RunLog(run, experiment="toy", uri=uri, warn=warnings.append)
    log.log({"loss": 1.0}, 0)
    log.close()
    assert warnings
    result = sync(run, uri)
    assert result.trouble is not None
    assert_nowhere(run, command_lines(), str(result), *warnings)


# What is promised after the first sign of life, and MLflow's import on a busy machine before it.
SECONDS = 5.0 + 30.0


@pytest.mark.parametrize("kind", ["hangs", "refuses", "500", "429", "413"])
def test_the_end_of_a_run_waits_seconds_for_a_server_that(tmp_path, kind):
    warnings: list[str] = []
    with ExitStack() as stack:
        address = f"127.0.0.1:{free_port()}"
        if kind != "refuses":
            status = None if kind == "hangs" else int(kind)
            address = stack.enter_context(odd_server(status)).address
        log = RunLog(tmp_path, experiment="toy", uri=f"http://{address}", warn=warnings.append)
        for step in range(200):
            log.log({"loss": float(step)}, step)
        began = time.monotonic()
        log.close()
        took = time.monotonic() - began
    assert took < SECONDS
    assert len(warnings) == 1
    assert warnings[0].startswith(f"tracking: http://{address}: ")
    if kind == "refuses":
        assert ": [Errno 111] Connection refused; what" in warnings[0]
    assert warnings[0].endswith(f"or by: mixopt sync {tmp_path} --uri http://{address}")
    assert "\n" not in warnings[0]
    assert len(read_points(tmp_path / "metrics.jsonl", 0, 1000)[0]) == 200
