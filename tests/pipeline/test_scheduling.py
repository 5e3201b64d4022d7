"""One line of stages becomes a schedule's file."""

from __future__ import annotations

import pytest
from command_line import mixopt

from mixopt import Mixture
from mixopt.pipeline import draws, schedule_of
from mixopt.sampling import Schedule

WEB, CODE = Mixture({"web": 0.75, "code": 0.25}), Mixture({"web": 0.25, "code": 0.75})


@pytest.fixture
def mixture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CODE.to_file(tmp_path / "anneal.yaml")
    WEB.to_file(tmp_path / "mixture.yaml")
    (tmp_path / "sizes.yaml").write_text("web: 1e9\ncode: 1e8\n")
    return tmp_path / "mixture.yaml"


def test_stages_have_names_lengths_and_mixtures(mixture):
    line = "warmup:1%,stable:rest,decay:1e8:to:anneal.yaml,anneal:10%:mixture.yaml"
    schedule = schedule_of(mixture, tokens=10**9, stages=line)
    assert [stage.tokens for stage in schedule.stages] == [10**7, 79 * 10**7, 10**8, 10**8]
    assert [stage.name for stage in schedule.stages] == ["warmup", "stable", "decay", "anneal"]
    assert [(stage.mixture, stage.to) for stage in schedule.stages] == [
        (WEB, None),
        (WEB, None),
        (WEB, CODE),
        (WEB, None),
    ]
    assert (schedule.batch, schedule.sequence_length, schedule.max_epochs) == (1024, 4096, None)
    assert (schedule.inventory, schedule.provenance["mixture"]) == (None, WEB.fingerprint)
    after = schedule_of(mixture, tokens=10**9, stages="stable:90%:anneal.yaml,decay:10%")
    assert [stage.mixture for stage in after.stages] == [CODE, CODE]


def test_the_command_writes_what_is_read_and_simulated(mixture, tmp_path):
    out = tmp_path / "schedule.yaml"
    asked = ["--tokens", "1e9", "--inventory", "sizes.yaml", "--out", out, "--batch", "64x4096"]
    line = "stable:90%,anneal:10%:anneal.yaml"
    ended = mixopt("export", mixture, "--to", "schedule", *asked, "--stages", line)
    assert ended.code == 0, ended.error
    assert f"next: mixopt predict {out}" in ended.out
    schedule = Schedule.from_file(out)
    assert schedule.provenance["source"] == "mixture.yaml"
    assert draws(out).stages[-1].epochs["code"] == pytest.approx(3, rel=1e-3)
