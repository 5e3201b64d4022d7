"""The notebooks as they are committed: executed in order, without errors, and fit to be read.

`make notebooks` executes them; `python experiments/checks/run_notebooks.py --write` renews these.
"""

import json
import re

import pytest
from places import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
# What belongs to the machine that executed them, and what no reader can use.
MACHINE = {
    "a folder of the machine": r"/(?:tmp|home|root|Users|work|usr|var|opt|mnt)/",
    "an address": r"\b(?:127\.0\.0\.1|localhost|0x[0-9a-f]{6,})\b",
    "a warning": r"\b\w*Warning\b",
    "progress": r"\r|\d+%\|| in \d+s\b|\[\d+:\d\d<",
    "a colour of a terminal": r"\x1b\[",
    "a widget without its kernel": r"application/vnd\.jupyter\.widget",
}


def texts(output):
    """Return all that is said in an output; pictures are left out."""
    said = {**output.get("data", {}), "text": output.get("text", "")}
    return [f"{kind}\n{''.join(text)}" for kind, text in said.items() if kind[:6] != "image/"]


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_in_order_without_errors_and_names_no_machine(path):
    code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert "error" not in [output["output_type"] for output in outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    text = "\n".join(text for output in outputs for text in texts(output))
    assert [what for what, words in MACHINE.items() if re.search(words, text)] == []
