"""The widget in a real JupyterLab: a slider changes Python's mixture."""

import json
import os
import subprocess
import sys
import time
import urllib.request

import pytest
from made_what_if import made_fit_of_gaussians
from ranks import free_port

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupyterlab")

pytestmark = pytest.mark.nightly

CELL = """\
import json, mixopt
from pathlib import Path

widget = mixopt.explore(mixopt.load_fit("fit"))

def keep(change):
    Path("seen.json").write_text(json.dumps(dict(change["new"])))

widget.observe(keep, "mixture")
widget"""
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
RUN_ALL = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
DARK = (
    "() => { jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' }); }"
)
PATIENCE = 180_000  # milliseconds: a kernel that starts on a busy machine


@pytest.fixture
def notebook(tmp_path):
    """A folder with a fit and a notebook that explores it."""
    made_fit_of_gaussians().save(tmp_path / "fit")
    cell = nbformat.v4.new_code_cell(CELL)
    content = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": KERNEL})
    nbformat.write(content, tmp_path / "explore.ipynb")
    return tmp_path


@pytest.fixture
def lab(notebook):
    """The address of a JupyterLab in that folder, which leaves nothing elsewhere."""
    port = free_port()
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(notebook / name.lower()) for name in names}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={notebook}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    with (notebook / "lab.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=notebook, env={**os.environ, **own}, stdout=log, stderr=log
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api", process)
        yield f"http://127.0.0.1:{port}/lab/tree/explore.ipynb?reset"
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
    pytest.fail("JupyterLab did not start")


@pytest.fixture
def page(open_page, lab, page_problems):
    page = open_page(lab)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=PATIENCE)
    page.evaluate(RUN_ALL)
    page.locator("[data-domain]").first.wait_for(timeout=PATIENCE)
    page_problems.clear()  # those of JupyterLab while it started
    yield page
    page.close()  # before its server ends
    page_problems[:] = [line for line in page_problems if "/api/" not in line]


def seen(folder, page, true):
    """Wait until Python has a mixture of which something is true, and return it."""
    file = folder / "seen.json"
    for _ in range(600):
        found = json.loads(file.read_text() or "null") if file.exists() else None
        if found is not None and true(found):
            return found
        page.wait_for_timeout(100)
    raise AssertionError("not within a minute")


@pytest.mark.timeout(900)
def test_what_is_turned_is_in_python(page, notebook):
    slider = page.locator("[data-domain=law] input[type=range]")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    turned = seen(notebook, page, lambda mixture: mixture["law"] > 0.34)
    share = page.locator("[data-domain=law]").get_attribute("data-share")
    assert float(share) == pytest.approx(turned["law"])

    page.evaluate(DARK)
    page.locator(".wi-widget.wi-dark").wait_for(timeout=PATIENCE)
