"""Ranks whose orders of samples differ are found, on real ranks, and the error names the rank."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranks import finish, start_ranks

from mixopt import MixtureSampler
from mixopt.sampling import check_ranks

JOB = Path(__file__).parents[1] / "support" / "agreement_job.py"


def said_by(ranks, kind, out):
    finish(start_ranks(ranks, JOB, kind, out))
    return [json.loads((out / f"said.{rank}").read_text()) for rank in range(ranks)]


def sampler(**options):
    given = {"batch_size": 8, "rank": 0, "world_size": 2} | options
    return MixtureSampler({"web": 100, "code": 50}, [0.5, 0.5], **given)


@pytest.mark.parametrize("kind", ["sampler", "loader"])
def test_weights_that_one_rank_alone_changed_are_found_at_a_checkpoint(kind, tmp_path):
    said = said_by(3, kind, tmp_path)
    assert len({one["error"] for one in said}) == 1
    assert said[0]["error"].startswith(
        "rank 2 has a different order of samples from rank 0: its weights differ from batch 22 on"
    )
    assert "\n" not in said[0]["error"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("seed", "rank 1 has a different order of samples from rank 0: its seed is 1, there"),
        ("part", "rank 1 takes the same part of each batch as another"),
        ("apart", "its position is 504, there it is 492"),
    ],
)
def test_another_seed_part_or_checkpoint_on_one_rank_is_found(kind, text, tmp_path):
    said = said_by(2, kind, tmp_path)
    assert text in said[0]["error"]
    assert said[0]["error"] == said[1]["error"]


@pytest.mark.nightly
def test_weights_that_all_ranks_changed_alike_are_no_error(tmp_path):
    assert said_by(2, "alike", tmp_path) == [{"error": None, "batches": 30}] * 2


@pytest.mark.nightly
def test_the_state_of_a_driver_finds_them(tmp_path):
    said = said_by(2, "driver", tmp_path)
    assert said[0]["batches"] == 11
    assert "its weights differ from batch 90 on" in said[1]["error"]


def test_without_other_processes_there_is_nothing_to_check():
    check_ranks(sampler())


def test_the_fingerprint_is_the_same_on_every_rank():
    assert sampler(rank=0).fingerprint == sampler(rank=1).fingerprint


def test_the_fingerprint_tells_weights_seed_batch_size_and_place_apart():
    changed, further = sampler(), sampler()
    changed.set_weights([0.4, 0.6], 7)
    next(iter(further))
    every = [sampler(), changed, further, sampler(seed=1), sampler(batch_size=4)]
    assert len({one.fingerprint for one in every}) == len(every)
