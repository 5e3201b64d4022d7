"""Processes that share a replica of the model take the same rows: real processes, 2 x 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mesh_job import OTHER, SIZES, WEIGHTS
from ranks import finish, start_ranks

from mixopt import MixtureSampler, SamplerError

pytestmark = pytest.mark.nightly
JOB = Path(__file__).parents[1] / "support" / "mesh_job.py"


def said_by(kind, out):
    finish(start_ranks(4, JOB, kind, out))
    return [json.loads((out / f"said.{rank}").read_text()) for rank in range(4)]


def expected(stop):
    """Rows of the global batches of an undisturbed run in one process."""
    order = MixtureSampler(SIZES, WEIGHTS, batch_size=8, rank=0, world_size=1)
    order.set_weights(OTHER, 14)
    return order.order.rows(0, stop).tolist()


def test_peers_take_the_same_rows_and_a_job_of_another_shape_goes_on_with_the_rest(tmp_path):
    said = said_by("trained", tmp_path)
    assert [one["part"] for one in said] == [[0, 2], [0, 2], [1, 2], [1, 2]]
    assert said[0]["rows"] == said[1]["rows"]
    assert said[2]["rows"] == said[3]["rows"]
    halves = zip(said[0]["rows"], said[2]["rows"], strict=True)
    assert [one + other for one, other in halves] == expected(40)

    states = {(tmp_path / f"state.{rank}").read_text() for rank in range(4)}
    assert len(states) == 1

    said = said_by("resumed", tmp_path)
    assert [one["part"] for one in said] == [[rank, 4] for rank in range(4)]
    quarters = zip(*(one["rows"] for one in said), strict=True)
    assert [[*a, *b, *c, *d] for a, b, c, d in quarters] == expected(70)[40:]


def test_the_rank_is_that_along_the_dimensions_that_split_data(tmp_path):
    said = said_by("parts", tmp_path)
    by_rank = [[rank, 4] for rank in range(4)]
    halves = [[0, 2], [0, 2], [1, 2], [1, 2]]
    assert {name: [one[name] for one in said] for name in said[0]} == {
        "replicate, shard": by_rank,
        "shard alone": [[0, 2], [1, 2], [0, 2], [1, 2]],
        "flattened": by_rank,
        "data": halves,
        "named by its user": halves,
        "unnamed": by_rank,
        "position of a stream": [0, 0, 4, 4],
    }


def test_a_mesh_that_does_not_say_along_what_data_are_split_is_refused_with_its_dimensions(
    tmp_path,
):
    said = said_by("refused", tmp_path)
    begins = {
        "none": "the mesh has the dimensions 'tp', 'pp', of which none splits data; give the one",
        "model": "the mesh has the dimensions 'tp', of which none splits data",
        "unknown": "the mesh has the dimensions 'dp', 'ep', of which 'ep' may split data or the",
        "unnamed": "the mesh of 2 dimensions has no names for them; give init_device_mesh(",
        "both": "mesh is given, and rank and world_size too",
        "object": "mesh is str; it must be a torch DeviceMesh",
        "nothing given": "2 processes share a replica of the model (dimension 'tp' of a device",
    }
    for one in said:
        assert one["numbers"] is None
        assert {name: one[name][: len(text)] for name, text in begins.items()} == begins
        assert "\n" not in "".join(one[name] for name in begins)
    missing = "this process is not in the mesh; make the sampler only on those that are"
    assert [one["part of the job"] for one in said] == [None, None, missing, missing]


def test_weights_that_one_peer_alone_changed_are_found_at_a_checkpoint(tmp_path):
    said = said_by("one_peer_changed", tmp_path)
    assert "rank 3 has a different order of samples from rank 0" in said[0]["error"]
    assert len({one["error"] for one in said}) == 1


def test_numbers_that_are_no_ranks_along_data_parallelism_are_found(tmp_path):
    said = said_by("wrong_numbers", tmp_path)
    for one in said:
        assert one["peers"] is None
        assert one["uneven"].startswith(
            "4 processes take the 2 parts of each batch unequally: 3x rank=0, 1x rank=1; give each"
        )
        assert "rank 0 has a different order" in one["sizes"]
        assert "its world_size is 4, there it is 2" in one["sizes"]


@pytest.mark.parametrize("given", [{"rank": 0}, {"world_size": 2}])
def test_a_rank_without_a_world_size_is_refused(given):
    with pytest.raises(SamplerError, match="is given without the other"):
        MixtureSampler(SIZES, WEIGHTS, batch_size=8, **given)
