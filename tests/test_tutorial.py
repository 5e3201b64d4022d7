"""docs/tutorial.md works from its first block to its last, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import mixopt
from places import PROJECT

from mixopt import load_run

pytestmark = pytest.mark.nightly

PAGE = (PROJECT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_goes_from_text_to_a_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "tutorial"}
    for language, text in BLOCK.findall(PAGE):
        run_block(language, text, names)
    found = load_run("runs/first")
    assert found.proposal.epochs["manual"] == pytest.approx(4, abs=0.01)  # as section 3 says
    assert "constraints.max_epochs" in str(found.proposal.to_json()["binding"])
    assert Path("runs/first/report.html").exists()
    assert Path("blend.json").exists()
    assert abs(sum(names["loader"].realised().shares.values()) - 1) < 1e-6


def run_block(language: str, text: str, names: dict[str, object]) -> None:
    """Do what a reader does with a block: run it, or save it under the name that it gives."""
    if language == "python":
        exec(compile(text, "docs/tutorial.md", "exec"), names)
    elif language == "yaml":
        Path(re.match(r"# (\S+)", text)[1]).write_text(text)
    else:
        assert language == "sh"
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] != ["pip", "install"]:
                ended = mixopt(*words[1:])
                assert ended.code == 0, f"{line}: {ended.error}"
