"""The commands and the example of docs/export.md run as they are written."""

from __future__ import annotations

import re
import shlex

import pytest
from command_line import mixopt
from places import PROJECT

from mixopt.integrations import EXPORT_TOOLS

PAGE = (PROJECT / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files that the page shows, in the working directory."""
    for name, text in re.findall(r"```yaml\n# (\w+\.yaml)(.*?)```", PAGE, re.S):
        (tmp_path / name).write_text(f"#{text}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_works(folder):
    commands = [
        line
        for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S)
        for line in block.splitlines()
        if line.startswith("mixopt ")
    ]
    assert len(commands) > len(EXPORT_TOOLS)
    for command in commands:
        ended = mixopt(*shlex.split(command)[1:])
        assert ended.code == 0, f"{command}: {ended.error}"


def test_the_page_has_a_row_and_a_command_for_every_tool_with_its_needs():
    rows = dict(re.findall(r"^\| `([a-z][\w-]*)` \|(.*)", PAGE.partition("## Commands")[0], re.M))
    assert list(rows) == list(EXPORT_TOOLS)
    for name, tool in EXPORT_TOOLS.items():
        needs = re.findall(r"`(--(?:tokens|inventory|sample-tokens))`", rows[name].split("|")[2])
        assert tuple(needs) == tool.unit.needs
        assert re.search(rf"^mixopt export mixture.yaml --to {name}( |$)", PAGE, re.M)


def test_the_example_runs(folder):
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(code, names)
    assert "web#" in str(names["text"])
