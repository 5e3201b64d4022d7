"""The widget in a real marimo notebook that runs as an app: a slider changes Python's mixture."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest
from made_what_if import made_fit_of_gaussians
from ranks import free_port

pytest.importorskip("marimo")

pytestmark = pytest.mark.nightly

NOTEBOOK = """\
import marimo

app = marimo.App()


@app.cell
def _():
    import json
    from pathlib import Path

    import marimo as mo
    import mixopt

    widget = mo.ui.anywidget(mixopt.explore(mixopt.load_fit("fit")))
    widget
    return Path, json, widget


@app.cell
def _(Path, json, widget):
    Path("seen.json").write_text(json.dumps(dict(widget.widget.mixture)))
    return


if __name__ == "__main__":
    app.run()
"""
PATIENCE = 240_000  # milliseconds: a kernel that starts on a busy machine


@pytest.fixture
def notebook(tmp_path):
    """A folder with a fit and a notebook that explores it."""
    made_fit_of_gaussians().save(tmp_path / "fit")
    (tmp_path / "explore.py").write_text(NOTEBOOK)
    return tmp_path


@pytest.fixture
def app(notebook):
    """The address of the notebook as an app."""
    port = free_port()
    command = [sys.executable, "-m", "marimo", "run", "explore.py", "--headless", "--no-token"]
    command += ["--host=127.0.0.1", f"--port={port}"]
    with (notebook / "app.log").open("w") as log:
        process = subprocess.Popen(command, cwd=notebook, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(address, process):
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail("marimo did not start")


def seen(folder, page, true):
    """Wait until Python has a mixture of which something is true, and return it."""
    file = folder / "seen.json"
    for _ in range(1200):
        found = json.loads(file.read_text() or "null") if file.exists() else None
        if found and true(found):
            return found
        page.wait_for_timeout(100)
    raise AssertionError("not within two minutes")


@pytest.mark.timeout(900)
def test_a_slider_runs_the_cells_that_read_the_mixture(open_page, app, notebook, page_problems):
    page = open_page(app)
    slider = page.locator("[data-domain=law] input[type=range]")
    slider.wait_for(timeout=PATIENCE)
    page_problems.clear()  # those of marimo while it started
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    turned = seen(notebook, page, lambda mixture: mixture["law"] > 0.34)
    share = page.locator("[data-domain=law]").get_attribute("data-share")
    assert float(share) == pytest.approx(turned["law"])
    page.close()  # before its server ends
    theirs = ("was preloaded", "WebSocket closed")
    page_problems[:] = [one for one in page_problems if not any(part in one for part in theirs)]
