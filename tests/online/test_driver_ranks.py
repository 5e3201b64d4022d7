"""The driver on real gloo ranks: one decides, all do the same, and any number of them goes on."""

from __future__ import annotations

import json
import time

import driver_job
import pytest
from ranks import finish, kill, start_ranks

JOB = driver_job.__file__


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The log and the batches of one process without torch.distributed."""
    out = tmp_path_factory.mktemp("undisturbed")
    driver_job.steer(out, 45, driver_job.Sweeping())
    return (out / "mixture_log.jsonl").read_bytes(), batches_of(out, 1)


def batches_of(out, world_size):
    """Rows of each batch over all ranks; of one that was trained on twice the later ones."""
    parts = []
    for rank in range(world_size):
        lines = (out / f"rows.{rank}").read_text().splitlines()
        parts.append(dict(map(json.loads, lines)))
    return {step: [row for part in parts for row in part[step]] for step in parts[0]}


def test_a_killed_job_of_two_ranks_goes_on_with_one_to_the_same_mixtures(undisturbed, tmp_path):
    log, batches = undisturbed
    ranks = start_ranks(2, JOB, "steered", tmp_path, 45)
    state = tmp_path / "state.json"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (
        state.exists() and json.loads(state.read_text())["driver"]["step"] >= 20
    ):
        time.sleep(0.01)
    kill(ranks)
    step = json.loads(state.read_text())["driver"]["step"]
    assert 20 <= step < 45
    before = batches_of(tmp_path, 2)
    for rank in range(2):
        (tmp_path / f"rows.{rank}").unlink()
    finish(start_ranks(1, JOB, "steered", tmp_path, 45))
    after = batches_of(tmp_path, 1)
    assert min(after) == step
    assert {k: before[k] for k in range(step)} | after == batches
    assert (tmp_path / "mixture_log.jsonl").read_bytes() == log


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Where two ranks wrote what each says of estimators that do not work."""
    out = tmp_path_factory.mktemp("others")
    finish(start_ranks(2, JOB, "others", out, 20))
    return out


@pytest.fixture(scope="module")
def said(others):
    return [json.loads((others / f"said.{rank}").read_text()) for rank in range(2)]


def test_what_the_estimator_raises_on_rank_0_freezes_all_ranks(others, said):
    assert [one["frozen"] for one in said] == ["ZeroDivisionError in plan: no share"] * 2
    last = json.loads((others / "mixture_log.jsonl").read_text().splitlines()[-1])
    assert last["why"] == "frozen: ZeroDivisionError in plan: no share"
    assert last["weights"] == {"web": 0.5, "code": 0.3, "books": 0.2}  # not those of a sweep


def test_an_estimator_that_refuses_is_an_error_on_all_ranks(said):
    assert said[0]["refused"] == "too few domains"
    assert said[1]["refused"] == "EstimatorError on rank 0: too few domains"
