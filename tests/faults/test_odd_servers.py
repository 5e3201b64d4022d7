"""A server that hangs, refuses or answers with errors holds up the end of a run for seconds."""

import time
from contextlib import ExitStack

import pytest
from odd_servers import closed_port, odd_server
from run_log import RunLog

from mixopt.tracking.record import Position

pytest.importorskip("mlflow")

# What is promised after the first sign of life, and MLflow's import on a busy machine before it.
SECONDS = 5.0 + 30.0


@pytest.mark.parametrize("kind", ["hangs", "refuses", "500", "429", "413"])
def test_the_end_of_a_run_waits_seconds_for_a_server_that(tmp_path, kind):
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
    assert len(Position().take(tmp_path / "metrics.jsonl", 1000)) == 200
