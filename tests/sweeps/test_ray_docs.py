"""The page on Ray: its options are ones, and its messages are what is said."""

import re
from pathlib import Path

import pytest
import yaml

from mixopt.config import load_config
from mixopt.sweeps import make_executor

HOUSE = Path(__file__).parents[2]
PAGE = (HOUSE / "docs" / "ray.md").read_text(encoding="utf-8")
REST = """\
corpus: {domains: {web: {tokens: 1e12}, code: {tokens: 4e11}}}
evaluation: {exams: {}}
proxy: {name: command, run: train, result: m.json}
objective: {target: exams, unit: nats_per_token}
"""


def test_the_configuration_of_the_page_makes_an_executor(tmp_path):
    pytest.importorskip("ray")
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (tmp_path / "page.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load(REST), **yaml.safe_load(block)})
    )
    sweep = load_config(tmp_path / "page.yaml").sweep
    make_executor(sweep, tmp_path)


def test_the_page_lists_the_options_that_there_are():
    from mixopt.sweeps import RayExecutor

    listed = re.findall(r"^\| `(\w+)` \|", PAGE, re.M)
    assert sorted(listed) == sorted(RayExecutor.__init__.__kwdefaults__)
