"""A foreign run directory sends nothing, a password is seen nowhere, no server holds a run up.

Real processes and real HTTP servers on 127.0.0.1; what is sent is what the servers were asked.
"""

import base64
import json
import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from odd_servers import serving
from ranks import free_port
from run_log import RunLog

from mixopt.errors import RunError
from mixopt.tracking import sync
from mixopt.tracking.record import JOURNAL, Position, WantedRun

pytest.importorskip("mlflow")

WORD = "s3cret-w0rd"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No server is named by the environment."""
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


@contextmanager
def odd_server(status: int | None, *, hello: bool = False):
    """Give a server that answers with a status, or hangs; `hello`: well when it is knocked at."""
    asked, closing = [], threading.Event()

    def answer(request):
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        asked.append((request.path, request.headers.get("Authorization")))
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
            yield SimpleNamespace(address=address, asked=asked)
        finally:
            closing.set()


def hostile(path: Path, uri: str | None, *, step: str = "sweep", **fields: Any) -> Path:
    """Make a run directory with a record as somebody else may have written it."""
    path.mkdir(exist_ok=True)
    wanted = WantedRun(step, uri, "toy", "n", 1500, **fields)
    (path / JOURNAL).write_text(json.dumps(asdict(wanted)) + "\n")
    return path


def copies(folder: Path, content: bytes) -> list[Path]:
    """Return the files below a folder that have a content."""
    found = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return [file for file in found if content in file.read_bytes()]


def test_a_server_that_only_the_directory_names_is_not_asked_anything(tmp_path):
    with odd_server(500) as server:
        run = hostile(
            tmp_path / "run", f"http://u:{WORD}@{server.address}", files={"config.yaml": None}
        )
        with pytest.raises(RunError) as found:
            sync(run)
        assert server.asked == []
    message = str(found.value)
    assert f"only this directory names the server http://***@{server.address}" in message
    assert f"--uri http://{server.address}" in message
    assert "--trust" in message
    assert WORD not in message
    assert "\n" not in message


@pytest.mark.parametrize("way", ["uri", "environment", "trust"])
def test_a_server_that_the_user_names_or_trusts_is_asked(tmp_path, monkeypatch, way):
    with odd_server(500) as server, odd_server(500) as named:
        run = hostile(tmp_path / "run", f"http://{server.address}")
        uri = f"http://{named.address}"
        given = {"uri": {"uri": uri}, "trust": {"trust": True}}.get(way, {})
        if way == "environment":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        result = sync(run, **given)
        assert result.trouble is not None
        assert (bool(server.asked), bool(named.asked)) == (way == "trust", way != "trust")


@pytest.mark.parametrize(("step", "own"), [("sweep", True), ("pretrain", False), ("log", True)])
def test_files_that_are_not_of_the_run_are_not_sent(tmp_path, step, own):
    secret = b"private " + WORD.encode()
    (tmp_path / "secret.txt").write_bytes(secret)
    run = tmp_path / "run"
    (run / "figures").mkdir(parents=True)
    (run / "figures" / "a.svg").symlink_to(tmp_path / "secret.txt")
    (run / "trials.parquet").symlink_to(tmp_path / "secret.txt")
    (run / "mixture_log.jsonl").symlink_to(tmp_path / "secret.txt")
    names = ["../secret.txt", str(tmp_path / "secret.txt"), "/etc/hostname"]
    names += ["figures/a.svg", "trials.parquet", "mixture_log.jsonl"]
    hostile(run, None, files=dict.fromkeys(names), lines=["../secret.txt"], step=step)
    store = tmp_path / "store"
    store.mkdir()
    result = sync(run, None if own else f"sqlite:///{store / 'mlflow.db'}")
    assert result.sent["files"] == 0
    assert result.sent["points"] == 0
    assert result.trouble is not None
    kept = (run if own else store) / "mlartifacts"
    assert not [file for file in kept.rglob("*") if file.is_file()]
    assert copies(tmp_path, secret) == [tmp_path / "secret.txt"]


# --- Passwords ----------------------------------------------------------------------------------


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
    assert copies(folder, WORD.encode()) == []
    assert [text for text in texts if WORD in text] == []


def wait_for(condition) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_password_reaches_the_server_and_nothing_else(tmp_path, capfd):
    run, warnings = tmp_path / "run", list[str]()
    with odd_server(500, hello=True) as server:
        uri = f"http://somebody:{WORD}@{server.address}"
        log = RunLog(run, experiment="toy", uri=uri, warn=warnings.append)
        log.log({"loss": 1.0}, 0)
        wait_for(lambda: len(server.asked) > 1)
        seen = command_lines()
        assert f"mixopt.tracking.sender\0{run}" in seen
        log.close()
        login = "Basic " + base64.b64encode(f"somebody:{WORD}".encode()).decode()
        assert {given for _, given in server.asked} == {login}
    (opened, *_) = map(json.loads, (run / JOURNAL).read_text().splitlines())
    assert opened["server"] == f"http://***@{server.address}"
    assert len(warnings) == 1
    assert warnings[0].startswith(f"tracking: http://***@{server.address}: ")
    assert f"mixopt sync {run} --uri http://{server.address}, with MLFLOW" in warnings[0]
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    run = hostile(tmp_path / "run", None, lines=["m.jsonl"], folder="trials")
    os.mkfifo(run / "m.jsonl")
    (run / "trials").mkdir()
    os.mkfifo(run / "trials" / "t0.json")
    assert sync(run).sent["points"] == 0
    (run / JOURNAL).unlink()
    os.mkfifo(run / JOURNAL)
    with pytest.raises(RunError, match="is not a file; delete it"):
        sync(run)


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
    assert warnings[0].endswith(f"or by: mixopt sync {tmp_path} --uri http://{address}")
    assert "\n" not in warnings[0]
    assert len(Position().take(tmp_path / "metrics.jsonl", 1000)) == 200
