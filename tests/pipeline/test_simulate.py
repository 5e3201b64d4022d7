"""A mixture becomes a schedule, and what a job would draw of it is said."""

import json

import pytest
import yaml
from command_line import mixopt as mixopt_

import mixopt
from mixopt import Mixture, MixtureSampler, SamplerError
from mixopt.pipeline import draws, export, schedule_of
from mixopt.sampling import Schedule, Stage

WEB = Mixture({"web": 0.75, "code": 0.25})


def test_the_command_writes_what_is_read_and_simulated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    WEB.to_file(tmp_path / "mixture.yaml")
    (tmp_path / "sizes.yaml").write_text("web: 1e9\ncode: 1e8\n")
    options = ["--tokens", "1e9", "--inventory", "sizes.yaml", "--out", "schedule.yaml"]
    ended = mixopt_("export", "mixture.yaml", "--to", "schedule", *options, "--batch", "64x4096")
    assert ended.code == 0, ended.error
    assert "next: mixopt predict schedule.yaml" in ended.out
    schedule = Schedule.from_file("schedule.yaml")
    assert (schedule.batch, schedule.sequence_length, schedule.max_epochs) == (64, 4096, None)
    assert schedule.provenance["source"] == "mixture.yaml"
    assert schedule.provenance["mixture"] == WEB.fingerprint
    assert draws("schedule.yaml").stages[-1].epochs["code"] == pytest.approx(2.5, rel=1e-3)


WEIGHTS = {"web": 0.7, "code": 0.2, "books": 0.1}
ROWS = {"web": 5000, "code": 300, "books": 40}


def test_it_counts_what_the_sampler_draws(tmp_path):
    proposal, sizes = tmp_path / "proposal.yaml", tmp_path / "sizes.yaml"
    Mixture(WEIGHTS).to_file(proposal)
    sizes.write_text(yaml.safe_dump({name: count * 4 for name, count in ROWS.items()}))
    done = draws(proposal, tokens=60 * 128, batch="32x4", inventory=sizes)
    sampler = MixtureSampler(ROWS, WEIGHTS, batch_size=32)
    rows = [row for _, batch in zip(range(60), sampler, strict=False) for row in batch]
    assert done.drawn == {name: 4 * count for name, count in sampler.counts().items()}
    assert done.stages[0].epochs["books"] == sampler.counts()["books"] / 40
    first = [k // 32 for k, row in enumerate(rows) if row >= 5300]
    assert done.runs_out["books"].step == first[39]
    assert "web" not in done.runs_out


STATED = {"web": 9_000_000, "code": 1_000_000}


@pytest.fixture
def run(tmp_path):
    """A run whose corpus is a sample of domains of stated sizes, with a mixture in it."""
    lines = "".join(json.dumps({"text": f"line {k} " * 20}) + "\n" for k in range(40))
    domains = {}
    for name, tokens in STATED.items():
        (tmp_path / f"{name}.jsonl").write_text(lines)
        domains[name] = {"data_files": str(tmp_path / f"{name}.jsonl"), "tokens": tokens}
    config = {
        "corpus": {"tokenizer": "bytes", "domains": domains},
        "objective": {"target": "web"},
        "constraints": {"max_epochs": 4},
        "propose": {"target_tokens": 10_000_000},
    }
    (tmp_path / "made.yaml").write_text(yaml.safe_dump(config))
    mixopt.run(tmp_path / "made.yaml", tmp_path / "run", until="prepare", say=lambda _: None)
    Mixture({"web": 0.6, "code": 0.4}).to_file(tmp_path / "run" / "recommendation.yaml")
    return tmp_path / "run"


def test_a_file_of_a_run_is_drawn_exported_and_scheduled_with_the_sizes_that_the_run_states(run):
    file, job = run / "recommendation.yaml", {"tokens": 3000, "batch": "8x64"}
    assert draws(file, **job).inventory == STATED
    (run / "sizes.yaml").write_text("web: 5e6\ncode: 4e6\n")
    given = draws(file, **job, inventory=run / "sizes.yaml")
    assert given.inventory == {"web": 5_000_000, "code": 4_000_000}
    (text,) = export(file, "megatron-bridge-sft").values()
    weights = yaml.safe_load(text)["dataset"]["source_weights"]
    assert weights == pytest.approx([0.6 * 10 / 9, 0.4 * 10])
    config = schedule_of(file, batch="64x3200")  # code is at its cap, which whole batches exceed
    assert (config.inventory, config.max_epochs) == (STATED, 4)
    assert config.tokens > 10_000_000
    Schedule((Stage(Mixture({"web": 0.5, "code": 0.5}), steps=3),), 8, 4).to_file(run / "plan.yaml")
    assert draws(run / "plan.yaml").inventory == STATED
    said = mixopt_("predict", run / "plan.yaml", "--tokens", 3).error
    assert "a schedule has its own length" in said
    Mixture({"web": 0.59999, "code": 0.40001}).to_file(file)
    with pytest.raises(SamplerError, match="domain 'code': .* epochs of its 1,000,000"):
        schedule_of(file, batch="64x3200")
