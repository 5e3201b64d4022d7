"""What a job would draw is what the sampler draws."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mixopt import Mixture, MixtureSampler, SamplerError
from mixopt.corpus import TokenWriter
from mixopt.sampling import simulate_proposal
from mixopt.system import write_json

WEIGHTS = {"web": 0.7, "code": 0.2, "books": 0.1}
ROWS = {"web": 5000, "code": 300, "books": 40}


def simulated(folder, weights, rows, **options):
    for name, count in rows.items():
        path = folder / "corpus" / name / "train"
        with TokenWriter(path, dtype="uint16", tokenizer="t") as out:
            out.write(np.zeros(count * 4, np.uint16), documents=1, bytes=1)
    write_json(folder / "corpus" / "index.json", {"domains": list(rows)})
    Mixture(weights).to_file(folder / "proposal.yaml")
    return simulate_proposal(folder / "proposal.yaml", batch_size=32, length=4, **options)


def test_it_counts_what_the_sampler_draws(tmp_path):
    done = simulated(tmp_path, WEIGHTS, ROWS, batches=60)
    sampler = MixtureSampler(ROWS, WEIGHTS, batch_size=32)
    rows = [row for _, batch in zip(range(60), sampler, strict=False) for row in batch]
    assert done.drawn == {name: 4 * count for name, count in sampler.counts().items()}
    assert done.stages[0].epochs["books"] == sampler.counts()["books"] / 40
    first = [k // 32 for k, row in enumerate(rows) if row >= 5300]
    assert done.runs_out["books"].step == first[39]
    assert "web" not in done.runs_out


def test_a_domain_runs_out_in_the_batch_of_its_last_new_row(tmp_path):
    done = simulated(tmp_path, {"a": 1.0}, {"a": 64}, batches=5)
    assert done.runs_out["a"].step == 1


def test_it_says_when_a_share_is_handed_on_and_where_the_text_ends(tmp_path):
    done = simulated(tmp_path, WEIGHTS, ROWS, batches=600, max_epochs=1)
    assert list(done.exhausted) == ["books", "code"]
    assert done.end == 5340 // 32
    assert f"the text ends after {5340 // 32} of 600 steps" in done.notes
    assert done.drawn["books"] == 40 * 4
    json.dumps(done.to_json())


def test_a_sample_has_2048_tokens_and_a_batch_256_samples_where_nothing_is_said(tmp_path):
    with TokenWriter(tmp_path / "corpus" / "web" / "train", dtype="uint16", tokenizer="t") as out:
        out.write(np.zeros(5 * 2048 - 1, np.uint16), documents=1, bytes=1)
    write_json(tmp_path / "corpus" / "index.json", {"domains": ["web"]})
    Mixture({"web": 1.0}).to_file(tmp_path / "proposal.yaml")
    done = simulate_proposal(tmp_path / "proposal.yaml", batches=10)
    assert done.drawn == {"web": 2560 * 2048}
    assert done.runs_out["web"].step == 0


def test_a_missing_corpus_is_said(tmp_path):
    Mixture(WEIGHTS).to_file(tmp_path / "proposal.yaml")
    with pytest.raises(SamplerError, match="no corpus; give its folder, --corpus DIR"):
        simulate_proposal(tmp_path / "proposal.yaml", batches=10)


def test_batches_are_at_least_one(tmp_path):
    with pytest.raises(SamplerError, match="batches 0 is not a whole number >= 1"):
        simulated(tmp_path, {"a": 1.0}, {"a": 64}, batches=0)


@pytest.mark.parametrize("tokens", ["Infinity", "-1", "9223372036854775808", "null", "true", '"7"'])
def test_an_absurd_count_of_tokens_is_refused(tmp_path, tokens):
    shards = tmp_path / "corpus" / "web" / "train"
    shards.mkdir(parents=True)
    (shards / "index.json").write_text(f'{{"tokens": {tokens}}}')
    write_json(tmp_path / "corpus" / "index.json", {"domains": ["web"]})
    Mixture({"web": 1.0}).to_file(tmp_path / "proposal.yaml")
    with pytest.raises(SamplerError, match=r"web/train/index.json: (tokens|cannot be read): "):
        simulate_proposal(tmp_path / "proposal.yaml", batches=10)
