"""Each example of docs/plug_in.md runs."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
from places import PROJECT

from mixopt import Mixture
from mixopt.corpus import TokenWriter
from mixopt.system import write_json

PAGE = PROJECT / "docs" / "plug_in.md"
EXAMPLE = re.compile(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)


def examples():
    found = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    setup = found[0][1]
    for k, (needs, code) in enumerate(found[1:]):
        yield pytest.param(setup, code, needs, id=f"{k}-{needs or 'bare'}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    corpus = tmp_path / "runs" / "web" / "corpus"
    for k, name in enumerate(("web", "code", "books")):
        tokens = np.random.default_rng(k).integers(0, 64, 160 * 16).astype(np.uint16)
        with TokenWriter(corpus / name / "train", dtype="uint16", tokenizer="t") as writer:
            writer.write(tokens, documents=1, bytes=1)
    write_json(corpus / "index.json", {"domains": ["web", "code", "books"]})
    Mixture({"web": 0.5, "code": 0.3, "books": 0.2}).to_file(corpus.parent / "recommendation.yaml")
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("setup", "code", "needs"), list(examples()))
def test_the_example_runs(here, setup, code, needs):
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is absent")
    exec(compile(setup + code, str(PAGE), "exec"), {"__name__": "example"})


def test_there_is_an_example_for_each_framework():
    titles = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(titles) == len(list(examples())) == 5
