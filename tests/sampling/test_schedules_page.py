"""The files, commands and code of docs/schedules.md, and the example, work as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from command_line import mixopt
from places import PROJECT

from mixopt import Mixture, SamplerError
from mixopt.pretraining import load_pretraining
from mixopt.sampling import Schedule

PAGE = (PROJECT / "docs" / "schedules.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in re.findall(r"```yaml\n# (\w+\.yaml)(.*?)```", PAGE, re.S):
        (tmp_path / name).write_text(f"#{text}")
    Mixture({"web": 0.7, "code": 0.2, "books": 0.1}).to_file(tmp_path / "mixture.yaml")
    Mixture({"web": 0.3, "code": 0.4, "books": 0.3}).to_file(tmp_path / "anneal.yaml")
    (tmp_path / "inventory.yaml").write_text("{web: 80e9, code: 6e9, books: 1e9}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.nightly
def test_every_command_of_the_page_works(folder):
    commands = [
        line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()
    ]
    assert len(commands) == 8
    for command in commands:
        ended = mixopt(*shlex.split(command)[1:])
        assert ended.code == 0, f"{command}: {ended.error}"
    assert {"blend.0-main.json", "blend.1-anneal.json"} <= {p.name for p in folder.iterdir()}


def test_the_code_of_the_page_runs(folder):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(code, {})


def test_the_pretraining_file_of_the_page_is_right(folder):
    assert load_pretraining("pretrain.yaml").training.steps == 77057


def test_the_error_of_the_page_is_what_is_said(folder):
    text = (folder / "schedule.yaml").read_text().replace("max_epochs: 4", "max_epochs: 1")
    (folder / "schedule.yaml").write_text(text)
    with pytest.raises(SamplerError) as raised:
        Schedule.from_file("schedule.yaml")
    said = re.search(r"    mixopt: (schedule.yaml:.*?)\n\n", PAGE, re.S)
    assert " ".join(said[1].split()) == str(raised.value)


def test_the_example_is_a_schedule_of_its_run(monkeypatch):
    monkeypatch.chdir(PROJECT)
    config = load_pretraining("examples/pretrain_schedule.yaml")
    assert config.training.steps == 300
    text = yaml.safe_load(Path(config.corpus).read_text(encoding="utf-8"))
    assert set(config.plan.domains) <= set(text["corpus"]["domains"])
