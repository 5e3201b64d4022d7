"""The notebooks as they are committed: executed in order, without errors, and fit to be read.

`make notebooks` executes them; `python experiments/checks/run_notebooks.py --write` renews these.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST = 400_000  # bytes
# What belongs to the machine that executed them, and what no reader can use.
MACHINE = {
    "a folder of the machine": r"/(?:tmp|home|root|Users|work|usr|var|opt|mnt)/",
    "an address": r"\b(?:127\.0\.0\.1|localhost|0x[0-9a-f]{6,})\b",
    "a warning": r"\b\w*Warning\b",
    "progress": r"\r|\d+%\|| in \d+s\b|\[\d+:\d\d<",
    "a colour of a terminal": r"\x1b\[",
    "a widget without its kernel": r"application/vnd\.jupyter\.widget",
}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture
def code(cells):
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def outputs(code):
    return [output for cell in code for output in cell["outputs"]]


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


def test_there_are_seven():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


def test_every_cell_was_executed_in_order(code):
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


def test_there_are_outputs_and_none_is_an_error(outputs):
    kinds = [output["output_type"] for output in outputs]
    assert kinds
    assert "error" not in kinds
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_there_are_pictures(outputs):
    pictures = [
        output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})
    ]
    assert pictures
    assert all(base64.b64decode(joined(one)).startswith(b"\x89PNG") for one in pictures)


@pytest.mark.parametrize("what", MACHINE)
def test_outputs_have_nothing_of_the_machine(outputs, what):
    assert re.findall(MACHINE[what], texts(outputs)) == []


def test_the_file_is_of_a_modest_size(path):
    assert path.stat().st_size < MOST


def test_it_begins_with_a_question_and_ends_with_a_decision(cells):
    first, last = (joined(cells[place]["source"]) for place in (0, -1))
    assert "**Question.**" in first
    assert last.startswith("## Decision")


def test_its_metadata_is_that_of_no_machine(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert content["metadata"]["language_info"] == {"name": "python"}
    assert all(cell["metadata"] == {} for cell in content["cells"])
