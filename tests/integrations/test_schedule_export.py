"""A schedule for trainers has stages, or a fragment for each; docs/export.md works as written."""

import json
import re

import pytest
import yaml
from command_line import mixopt
from doc_pages import page_text, work_through
from read_fragments import read_shares

from mixopt import ConfigError, Mixture
from mixopt.integrations import EXPORT_TOOLS, export_mixture, export_schedule
from mixopt.sampling import Schedule, Stage

WEB, CODE = Mixture({"web": 0.75, "code": 0.25}), Mixture({"web": 0.25, "code": 0.75})
CONSTANT = Schedule(
    (Stage(WEB, steps=64, name="main"), Stage(CODE, steps=16, name="anneal")),
    batch=64,
    sequence_length=128,
    inventory={"web": 10**6, "code": 10**5},
)
LINEAR = Schedule(
    (Stage(WEB, steps=64), Stage(WEB, to=CODE, steps=64)), batch=64, sequence_length=128
)
SAMPLES = {"web": 100, "code": 200}


@pytest.mark.parametrize("tool", ["megatron", "axolotl"])
def test_each_stage_is_written_with_its_own_mixture(tool):
    texts = export_schedule(CONSTANT, tool, sample_tokens=SAMPLES)
    assert list(texts) == ["0-main", "1-anneal"]
    known = {"inventory": CONSTANT.inventory, "sample_tokens": SAMPLES}
    for text, stage in zip(texts.values(), CONSTANT.stages, strict=True):
        found = read_shares(text, tool, **known)
        assert dict(found) == pytest.approx(dict(stage.mixture), abs=2e-3)
    assert "Stage 2 of 2: anneal, steps 64 to 80 of 64 sequences of 128" in texts["1-anneal"]


def test_nanotron_has_data_stages_from_steps_that_count_from_1():
    (alone,) = yaml.safe_load(export_mixture(WEB, "nanotron"))["data_stages"]
    assert (alone["name"], alone["start_training_step"]) == ("mixture", 1)
    main, anneal = yaml.safe_load(export_schedule(CONSTANT, "nanotron")[""])["data_stages"]
    assert (main["name"], main["start_training_step"]) == ("main", 1)
    assert (anneal["name"], anneal["start_training_step"]) == ("anneal", 65)
    assert anneal["data"]["dataset"]["dataset_weights"] == [0.25, 0.75]


def test_levanter_has_weights_from_steps_at_the_ends_of_its_blocks():
    data = yaml.safe_load(export_schedule(CONSTANT, "levanter")[""])["data"]
    assert data["train_weights"] == [[0, dict(WEB)], [64, dict(CODE)]]
    assert "moved" not in export_schedule(CONSTANT, "levanter")[""]  # 64 are two of its blocks
    other = Schedule((Stage(WEB, steps=17), Stage(CODE, steps=17)), batch=64, sequence_length=8)
    text = export_schedule(other, "levanter")[""]
    assert yaml.safe_load(text)["data"]["train_weights"][1][0] == 32
    assert "every 32 steps; moved first steps: 1 from 17 to 32." in text
    odd = Schedule((Stage(WEB, steps=7), Stage(CODE, steps=9)), batch=3, sequence_length=8)
    with pytest.raises(ConfigError, match="every 2048 steps .* stage '0' has 7; make it longer"):
        export_schedule(odd, "levanter")


def test_a_linear_stage_is_divided(monkeypatch):
    monkeypatch.setattr("mixopt.integrations.export.PIECES", 4)
    text = export_schedule(LINEAR, "nanotron")[""]
    stages = yaml.safe_load(text)["data_stages"]
    weights = [stage["data"]["dataset"]["dataset_weights"][1] for stage in stages]
    assert weights == pytest.approx([0.25, 0.3125, 0.4375, 0.5625, 0.6875])
    assert [stage["start_training_step"] for stage in stages] == [1, 65, 81, 97, 113]
    assert "step 2 of 4 of a linear stage, the mixture of its middle" in text
    monkeypatch.setattr("mixopt.integrations.export.PIECES", 65)  # a stage of 64 steps has no more
    text = export_schedule(LINEAR, "nanotron")[""]
    assert len(yaml.safe_load(text)["data_stages"]) == 65


def test_the_command_writes_a_file_for_each_stage_and_divides_linear_ones(tmp_path):
    CONSTANT.to_file(tmp_path / "schedule.yaml")
    args = ["export", tmp_path / "schedule.yaml", "--to"]
    ended = mixopt(*args, "megatron", "--out", tmp_path / "blend.json")
    assert ended.code == 0, ended.error
    found = json.loads((tmp_path / "blend.1-anneal.json").read_text())
    assert found["train"] == ["0.25", "web", "0.75", "code"]
    assert "give --out FILE" in mixopt(*args, "megatron").error
    assert "start_training_step: 65" in mixopt(*args, "nanotron").out
    assert "a schedule has its own length" in mixopt(*args, "nanotron", "--tokens", 5).error
    LINEAR.to_file(tmp_path / "linear.yaml")
    text = mixopt("export", tmp_path / "linear.yaml", "--to", "nanotron").out
    assert len(yaml.safe_load(text)["data_stages"]) == 9
    assert "step 2 of 8 of a linear stage, the mixture of its middle" in text


def test_the_page_works_from_its_first_block_to_its_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixture.yaml").write_text("weights: {web: 0.6, code: 0.3, books: 0.1}")
    assert "web#" in str(work_through("export")["text"])


def test_the_page_has_a_row_and_a_command_for_every_tool_with_its_needs():
    page = page_text("export")
    rows = dict(re.findall(r"^\| `([a-z][\w-]*)` \|(.*)", page.partition("## Commands")[0], re.M))
    assert list(rows) == list(EXPORT_TOOLS)
    for name, tool in EXPORT_TOOLS.items():
        needs = re.findall(r"`(--(?:tokens|inventory|sample-tokens))`", rows[name].split("|")[2])
        assert tuple(needs) == tool.unit.needs
        assert re.search(rf"^mixopt export mixture.yaml --to {name}( |$)", page, re.M)
