"""The example of docs/experts/systems.md runs, and the page knows every system."""

import re

import pytest
from places import PROJECT
from systems.home import HOME
from systems.sample_systems import SAMPLE_SYSTEMS
from systems.text_systems import TEXT_SYSTEMS

PAGE = (PROJECT / "docs" / "experts" / "systems.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_example_runs(code, capsys):
    exec(compile(code, "docs/experts/systems.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.startswith("[[")


def test_each_system_has_a_row():
    rows = [row for row in PAGE.splitlines() if row.startswith("| ")]
    for system in (*TEXT_SYSTEMS, *SAMPLE_SYSTEMS, HOME):
        assert any(row.startswith(f"| {system.name}") for row in rows), system.name
