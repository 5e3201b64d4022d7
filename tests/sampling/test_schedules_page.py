"""The files, commands and code of docs/schedules.md, and the example, work as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from doc_pages import blocks_of, page_text, work_through
from places import PROJECT

from mixopt import Mixture, SamplerError
from mixopt.pretraining import load_pretraining
from mixopt.sampling import Schedule


def test_the_files_and_the_code_of_the_page_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work_through("schedules", commands=False)
    assert load_pretraining("pretrain.yaml").training.steps == 77057


@pytest.mark.nightly
def test_the_page_works_from_its_first_block_to_its_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Mixture({"web": 0.7, "code": 0.2, "books": 0.1}).to_file("mixture.yaml")
    Mixture({"web": 0.3, "code": 0.4, "books": 0.3}).to_file("anneal.yaml")
    Path("inventory.yaml").write_text("{web: 80e9, code: 6e9, books: 1e9}")
    work_through("schedules")
    assert {"blend.0-main.json", "blend.1-anneal.json"} <= {p.name for p in tmp_path.iterdir()}


def test_the_error_of_the_page_is_what_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = blocks_of("schedules", "yaml")[0].replace("max_epochs: 4", "max_epochs: 1")
    Path("schedule.yaml").write_text(text)
    with pytest.raises(SamplerError) as raised:
        Schedule.from_file("schedule.yaml")
    said = re.search(r"    mixopt: (schedule.yaml:.*?)\n\n", page_text("schedules"), re.S)
    assert " ".join(said[1].split()) == str(raised.value)


def test_the_example_is_a_schedule_of_its_run(monkeypatch):
    monkeypatch.chdir(PROJECT)
    config = load_pretraining("examples/pretrain_schedule.yaml")
    assert config.training.steps == 300
    text = yaml.safe_load(Path(config.corpus).read_text(encoding="utf-8"))
    assert set(config.plan.domains) <= set(text["corpus"]["domains"])
