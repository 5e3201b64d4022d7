"""Each example of docs/packing.md runs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from places import PROJECT

from mixopt.corpus import TokenWriter

PAGE = PROJECT / "docs" / "packing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def here(tmp_path, monkeypatch):
    tokens = np.random.default_rng(0).integers(0, 64, 9000).astype(np.uint16)
    path = tmp_path / "runs" / "web" / "corpus" / "web" / "train"
    with TokenWriter(path, dtype="uint16", tokenizer="t") as writer:
        writer.write(tokens, documents=1, bytes=1)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_example_runs(here, capsys, number):
    exec(compile(EXAMPLES[number], str(PAGE), "exec"), {"__name__": "example"})
