"""The examples of docs/streams.md run, and it names tests that there are."""

from __future__ import annotations

import re

import pytest
from places import PROJECT

PAGE = (PROJECT / "docs" / "streams.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_example_runs(code):
    exec(compile(code, "docs/streams.md", "exec"), {"__name__": "example"})


def test_the_tests_that_it_names_are_there():
    named = set(re.findall(r"`(?:tests/loading/)?(test_\w+\.py)`", PAGE))
    assert len(named) == 4
    assert all((PROJECT / "tests" / "loading" / name).exists() for name in named)
