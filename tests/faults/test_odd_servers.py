"""A server that hangs, refuses or answers with errors holds up the end of a run for 5 s at most."""

import time
from contextlib import ExitStack

import pytest
from odd_servers import closed_port, odd_server

from mixopt.errors import RunError
from mixopt.tracking import RunLog, sending
from mixopt.tracking.lines import Position

pytest.importorskip("mlflow")

SECONDS = 5.0 + 1.0  # what is promised, and what ending the process takes a busy machine


@pytest.mark.parametrize("kind", ["hangs", "refuses", "500", "429", "413"])
def test_the_end_of_a_run_waits_5_s_for_a_server_that(tmp_path, kind):
    warnings: list[str] = []
    with ExitStack() as stack:
        address = f"127.0.0.1:{closed_port()}"
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
    assert len(Position().new_points(tmp_path / "metrics.jsonl", 1000)[0]) == 200


@pytest.mark.parametrize("status", [None, 500])
def test_a_server_that_answers_a_knock_and_then_no_more_is_waited_for_5_s(tmp_path, status):
    warnings: list[str] = []
    with odd_server(status, hello=True) as server:
        log = RunLog(
            tmp_path, experiment="toy", uri=f"http://{server.address}", warn=warnings.append
        )
        log.log({"loss": 1.0}, 0)
        until = time.monotonic() + 120
        while len(server.asked) < 2 and time.monotonic() < until:  # MLflow takes seconds to import
            time.sleep(0.1)
        began = time.monotonic()
        log.close()
        took = time.monotonic() - began
    assert took < SECONDS
    assert len(warnings) == 1


def test_sync_gives_a_server_that_drips_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "ANSWER_SECONDS", 8.0)
    with odd_server(200, drips=True) as server:
        uri = f"http://{server.address}"
        log = RunLog(tmp_path, experiment="toy", uri=f"http://127.0.0.1:{closed_port()}")
        log.log({"loss": 1.0}, 0)
        log.close()
        began = time.monotonic()
        with pytest.raises(RunError, match=f"{uri}: no answer in 8 s; what was sent is kept"):
            sending.sync(tmp_path, uri)
        assert time.monotonic() - began < 8.0 + SECONDS
        assert server.asked
