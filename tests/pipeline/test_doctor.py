"""`mixopt doctor`: what is here, and what is missing with the line that installs it."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from command_line import mixopt

from mixopt.pipeline import health_lines, is_fit
from mixopt.pipeline.health import extra_line, extras


def named(found, name):
    return next(one for one in found["checks"] if one["name"] == name)


def test_it_names_python_machine_memory_gpu_extras_tracking_and_disk(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = json.loads(mixopt("doctor", "--json").out)
    names = [one["name"] for one in found["checks"]]
    assert names[:5] == ["python", "machine", "memory", "GPU", "cli"]
    assert names[-2:] == ["tracking", "disk"]
    assert {"regressors", "proxies", "mlflow", "ray", "remote"} <= set(names)
    assert found["ok"] is True
    assert "typer" in named(found, "cli")["text"]
    assert "SQLite" in named(found, "tracking")["text"]


def test_a_server_that_does_not_answer_is_a_note_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    ended = mixopt("doctor", "--json")
    line = named(json.loads(ended.out), "tracking")
    assert (ended.code, line["state"]) == (0, "note")
    assert "does not answer" in line["text"]
    assert "secret" not in ended.out


def test_a_server_that_answers_is_named(monkeypatch):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        line = named(json.loads(mixopt("doctor", "--json").out), "tracking")
        server.shutdown()
    assert line["state"] == "ok"
    assert line["text"].endswith(" answers")


@pytest.mark.parametrize(
    ("extra", "wanted", "state"),
    [
        ("cli", "no-such-package-here", "missing"),
        ("ray", "no-such-package-here", "note"),
        ("cli", "numpy", "ok"),
    ],
)
def test_only_what_the_command_line_needs_is_a_fault(extra, wanted, state):
    line = extra_line(extra, [(wanted, ">=0.1")])
    assert line.state == state
    assert is_fit([line]) is (state != "missing")
    assert (line.fix == f"pip install 'mixopt[{extra}]'") is (state != "ok")


def test_a_version_that_is_too_old_is_named_with_the_one_that_is_needed():
    line = extra_line("cli", [("numpy", ">=1000")])
    assert line.text.startswith("not installed: numpy >=1000 (installed: ")


def test_a_package_is_listed_with_the_first_extra_that_has_it():
    found = extras(
        [
            "numpy>=2.0",
            "typer>=0.15; extra == 'cli'",
            "torch>=2.9; extra == 'proxies'",
            "typer>=0.15; extra == 'proxies'",
            "mixopt[cli]; extra == 'proxies'",
            "typer>=0.15; extra == 'all'",
        ]
    )
    assert found == {"cli": [("typer", ">=0.15")], "proxies": [("torch", ">=2.9")]}


def test_the_line_that_installs_what_is_missing_is_on_its_own(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = list(health_lines([extra_line("ray", [("no-such-package-here", "")])]))
    assert lines[-1].strip() == "pip install 'mixopt[ray]'"
