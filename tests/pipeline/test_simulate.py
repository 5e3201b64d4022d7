"""What a job would draw is what the sampler draws, of one set of sizes."""

from __future__ import annotations

import json

import pytest
import yaml
from command_line import mixopt as mixopt_

import mixopt
from mixopt import Mixture, MixtureSampler, SamplerError
from mixopt.pipeline import draws, export, schedule_of
from mixopt.sampling import Schedule, Stage

WEIGHTS = {"web": 0.7, "code": 0.2, "books": 0.1}
ROWS = {"web": 5000, "code": 300, "books": 40}


def simulated(folder, weights, rows, batches, **options):
    Mixture(weights).to_file(folder / "proposal.yaml")
    sizes = folder / "sizes.yaml"
    sizes.write_text(yaml.safe_dump({name: count * 4 for name, count in rows.items()}))
    options = {"batch": "32x4", "inventory": sizes} | options
    return draws(folder / "proposal.yaml", tokens=batches * 128, **options)


def test_it_counts_what_the_sampler_draws(tmp_path):
    done = simulated(tmp_path, WEIGHTS, ROWS, batches=60)
    sampler = MixtureSampler(ROWS, WEIGHTS, batch_size=32)
    rows = [row for _, batch in zip(range(60), sampler, strict=False) for row in batch]
    assert done.drawn == {name: 4 * count for name, count in sampler.counts().items()}
    assert done.stages[0].epochs["books"] == sampler.counts()["books"] / 40
    first = [k // 32 for k, row in enumerate(rows) if row >= 5300]
    assert done.runs_out["books"].step == first[39]
    assert "web" not in done.runs_out


STATED = {"web": 9_000_000, "code": 1_000_000}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose corpus is a sample of domains of stated sizes, with a mixture in it."""
    folder = tmp_path_factory.mktemp("stated")
    lines = "".join(json.dumps({"text": f"line {k} " * 20}) + "\n" for k in range(40))
    for name in ("web", "code"):
        (folder / f"{name}.jsonl").write_text(lines)
    domains = {
        n: {"data_files": str(folder / f"{n}.jsonl"), "tokens": t} for n, t in STATED.items()
    }
    made = {
        "corpus": {"tokenizer": "bytes", "domains": domains},
        "objective": {"target": "web"},
        "constraints": {"max_epochs": 4},
        "propose": {"target_tokens": 10_000_000},
    }
    (folder / "made.yaml").write_text(yaml.safe_dump(made))
    mixopt.run(folder / "made.yaml", folder / "run", until="prepare", say=lambda _: None)
    Mixture({"web": 0.6, "code": 0.4}).to_file(folder / "run" / "recommendation.yaml")
    return folder / "run"


def test_a_file_of_a_run_is_simulated_with_the_sizes_that_the_run_states(run):
    done = draws(run / "recommendation.yaml", tokens=3000, batch="8x64")
    assert done.inventory == STATED


def test_sizes_that_are_given_count_before_those_of_a_run(run, tmp_path):
    (tmp_path / "sizes.yaml").write_text("web: 5e6\ncode: 4e6\n")
    job = {"tokens": 3000, "batch": "8x64", "inventory": tmp_path / "sizes.yaml"}
    given = draws(run / "recommendation.yaml", **job)
    assert given.inventory == {"web": 5_000_000, "code": 4_000_000}


def test_a_file_of_a_run_is_exported_and_scheduled_with_the_sizes_that_the_run_states(run):
    (text,) = export(run / "recommendation.yaml", "megatron-bridge-sft").values()
    weights = yaml.safe_load(text)["dataset"]["source_weights"]
    assert weights == pytest.approx([0.6 * 10 / 9, 0.4 * 10])
    made = schedule_of(run / "recommendation.yaml", batch="64x3200")
    assert (made.inventory, made.max_epochs) == (STATED, 4)  # code is at its cap


@pytest.mark.parametrize(("share", "is_taken"), [(0.4, True), (0.40001, False)])
def test_what_whole_batches_round_up_is_no_fault_of_a_mixture_at_its_cap(share, is_taken):
    mixture, sizes = Mixture({"web": 1 - share, "code": share}), STATED
    made = {"batch": 64, "sequence_length": 3200, "max_epochs": 4, "inventory": sizes}
    if is_taken:
        assert Schedule((Stage(mixture, tokens=10**7),), **made).tokens > 10**7
    else:
        with pytest.raises(SamplerError, match="domain 'code': .* epochs of its 1,000,000"):
            Schedule((Stage(mixture, tokens=10**7),), **made)


def test_a_schedule_in_a_run_has_the_sizes_that_the_run_states(run):
    schedule = Schedule((Stage(Mixture({"web": 0.5, "code": 0.5}), steps=3),), 8, 4)
    schedule.to_file(run / "schedule.yaml")
    assert draws(run / "schedule.yaml").inventory == STATED
    assert (
        "a schedule has its own length"
        in mixopt_("predict", run / "schedule.yaml", "--tokens", 3).error
    )
