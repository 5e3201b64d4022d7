"""The code on each page of docs/trainers runs, in a process of its own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest
from places import PROJECT

from mixopt import Mixture
from mixopt.corpus import TokenWriter
from mixopt.system import write_json

pytestmark = pytest.mark.nightly

PAGES = sorted((PROJECT / "docs" / "trainers").glob("*.md"))
BLOCK = re.compile(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def here(tmp_path):
    corpus = tmp_path / "runs" / "web" / "corpus"
    for k, name in enumerate(("web", "code", "books")):
        tokens = np.random.default_rng(k).integers(0, 64, 160 * 16).astype(np.uint16)
        with TokenWriter(corpus / name / "train", dtype="uint16", tokenizer="t") as writer:
            writer.write(tokens, documents=1, bytes=1)
    write_json(corpus / "index.json", {"domains": ["web", "code", "books"]})
    Mixture({"web": 0.5, "code": 0.3, "books": 0.2}).to_file(corpus.parent / "recommendation.yaml")
    return tmp_path


def blocks_of(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_the_page_runs(page, here):
    blocks = blocks_of(page)
    for needs in {needs for needs, _ in blocks if needs}:
        if importlib.util.find_spec(needs) is None:
            pytest.skip(f"{needs} is absent: make trainers")
    code = "\n".join(code for _, code in blocks)
    script = here / "page.py"
    script.write_text(f'if __name__ == "__main__":\n{indented(code)}', encoding="utf-8")
    command = [sys.executable, "-W", "ignore", str(script)]
    ended = subprocess.run(
        command, cwd=here, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def indented(code):
    return "".join(f"    {line}" for line in code.splitlines(keepends=True))
