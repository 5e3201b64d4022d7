"""What a job would draw is what the sampler draws."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mixopt import Mixture, MixtureSampler, SamplerError
from mixopt.corpus import TokenWriter
from mixopt.sampling import simulate_proposal, simulation_json, simulation_lines
from mixopt.sampling.forecast import simulate
from mixopt.system import write_json

WEIGHTS = {"web": 0.7, "code": 0.2, "books": 0.1}
ROWS = {"web": 5000, "code": 300, "books": 40}


def test_it_counts_what_the_sampler_draws():
    done = simulate(WEIGHTS, ROWS, batches=60, batch_size=32)
    sampler = MixtureSampler(ROWS, WEIGHTS, batch_size=32)
    rows = [row for _, batch in zip(range(60), sampler, strict=False) for row in batch]
    assert {one.domain: one.samples for one in done.domains} == sampler.counts()
    books = done.domains[2]
    assert books.epochs == books.samples / 40
    first = [k // 32 for k, row in enumerate(rows) if row >= 5300]
    assert books.runs_out == first[39]
    assert done.domains[0].runs_out is None


def test_a_domain_runs_out_in_the_batch_of_its_last_new_row():
    done = simulate({"a": 1.0}, {"a": 64}, batches=5, batch_size=32)
    assert done.domains[0].runs_out == 1


def test_it_ends_where_the_stream_does():
    done = simulate(WEIGHTS, ROWS, batches=600, batch_size=32, exhausted="stop")
    assert done.batches == 400 // 32
    assert "the stream ends after 12 of 600 batches" in simulation_lines(done)


def test_it_says_when_a_share_is_handed_on():
    done = simulate(WEIGHTS, ROWS, batches=100, batch_size=32, max_epochs=1)
    assert [entry.reason for entry in done.log] == ["start", "exhausted: books", "exhausted: code"]
    assert done.domains[2].samples == 40
    json.dumps(simulation_json(done))


def test_a_proposal_is_simulated_on_its_corpus(tmp_path):
    for name, rows in ROWS.items():
        with TokenWriter(
            tmp_path / "corpus" / name / "train", dtype="uint16", tokenizer="t"
        ) as out:
            out.write(np.zeros(rows * 4, np.uint16), documents=1, bytes=1)
    write_json(tmp_path / "corpus" / "index.json", {"domains": list(ROWS)})
    Mixture(WEIGHTS).to_file(tmp_path / "proposal.yaml")
    done = simulate_proposal(tmp_path / "proposal.yaml", batches=10, batch_size=32, length=4)
    assert {one.domain: one.rows for one in done.domains} == ROWS
    table = simulation_lines(done)
    assert table[1].split() == ["web", "70.000%", "70.0000%", "224", "0.045", "-"]


def test_a_sample_has_2048_tokens_and_a_batch_256_samples_where_nothing_is_said(tmp_path):
    with TokenWriter(tmp_path / "corpus" / "web" / "train", dtype="uint16", tokenizer="t") as out:
        out.write(np.zeros(5 * 2048 - 1, np.uint16), documents=1, bytes=1)
    write_json(tmp_path / "corpus" / "index.json", {"domains": ["web"]})
    Mixture({"web": 1.0}).to_file(tmp_path / "proposal.yaml")
    done = simulate_proposal(tmp_path / "proposal.yaml", batches=10)
    assert (done.domains[0].rows, done.domains[0].samples) == (4, 2560)


def test_a_missing_corpus_is_said(tmp_path):
    Mixture(WEIGHTS).to_file(tmp_path / "proposal.yaml")
    with pytest.raises(SamplerError, match="no corpus; give its folder, --corpus DIR"):
        simulate_proposal(tmp_path / "proposal.yaml", batches=10)


def test_batches_are_at_least_one():
    with pytest.raises(SamplerError, match="batches 0 is not a whole number >= 1"):
        simulate(WEIGHTS, ROWS, batches=0, batch_size=32)


@pytest.mark.parametrize("tokens", ["Infinity", "-1", "9223372036854775808", "null", "true", '"7"'])
def test_an_absurd_count_of_tokens_is_refused(tmp_path, tokens):
    shards = tmp_path / "corpus" / "web" / "train"
    shards.mkdir(parents=True)
    (shards / "index.json").write_text(f'{{"tokens": {tokens}}}')
    write_json(tmp_path / "corpus" / "index.json", {"domains": ["web"]})
    Mixture({"web": 1.0}).to_file(tmp_path / "proposal.yaml")
    with pytest.raises(SamplerError, match=r"web/train/index.json: (tokens|cannot be read): "):
        simulate_proposal(tmp_path / "proposal.yaml", batches=10)
