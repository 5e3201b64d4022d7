"""The notebooks as they are committed: executed in order, without errors, and fit to be read.

`make notebooks` executes them; `python experiments/checks/run_notebooks.py --write` renews these.
"""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# What belongs to the machine that executed them, and what no reader can use.
MACHINE = {
    "a folder of the machine": r"/(?:tmp|home|root|Users|work|usr|var|opt|mnt)/",
    "an address": r"\b(?:127\.0\.0\.1|localhost|0x[0-9a-f]{6,})\b",
    "a warning": r"\b\w*Warning\b",
    "progress": r"\r|\d+%\|| in \d+s\b|\[\d+:\d\d<",
    "a colour of a terminal": r"\x1b\[",
    "a widget without its kernel": r"application/vnd\.jupyter\.widget",
}


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def texts(outputs) -> str:
    """Return all that is said in outputs; pictures are left out."""
    found = []
    for output in outputs:
        data = output.get("data", {})
        found += [f"{kind}\n{joined(v)}" for kind, v in data.items() if kind[:6] != "image/"]
        found.append(joined(output.get("text", "")))
    return "\n".join(found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_executed_in_order_without_errors_and_names_no_machine(path):
    code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert "error" not in [output["output_type"] for output in outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    found = [what for what, words in MACHINE.items() if re.search(words, texts(outputs))]
    assert found == []
