"""Neighbours by embeddings are compared with neighbours by routing, against chance."""

import numpy as np
import pytest

from mixopt.errors import RoutingError
from mixopt.routing import LayerProbe, ProbeResult, load_probe, save_probe

TASKS, EXPERTS = 4, 6


def made(aligned, *, sequences=80, seed=0, layers=2, weights=False):
    """Return a probe of tasks, and embeddings near by task; routing follows them or does not."""
    rng = np.random.default_rng(seed)
    task_U = np.arange(sequences) % TASKS
    embeddings_UX = rng.normal(size=(TASKS, 5))[task_U] + rng.normal(size=(sequences, 5)) / 10
    of_task_TE = rng.dirichlet(np.full(EXPERTS, 0.5), TASKS)
    parts = []
    for number in range(layers):
        profile_UE = of_task_TE[task_U if aligned else rng.permutation(task_U)]
        counts_UE = np.array([rng.multinomial(200, profile_E) for profile_E in profile_UE])
        layer = LayerProbe(number, 1, counts_UE, np.zeros((0, 1), int), np.full(TASKS, np.nan))
        parts.append(layer)
    if weights:
        # What is counted says nothing; what is weighed does.
        even_UE = np.full((sequences, EXPERTS), 200)
        parts = [
            LayerProbe(
                part.layer,
                6,
                even_UE,
                np.zeros((0, 6), int),
                part.shared_D,
                weight_UE=part.counts_UE / 200,
            )
            for part in parts
        ]
    names = tuple("abcd")
    tokens_U = np.full(sequences, 200)
    return ProbeResult(names, task_U, tokens_U, np.zeros(0, int), tuple(parts)), embeddings_UX


def test_routing_that_follows_the_task_is_aligned_beyond_chance():
    probe, embeddings_UX = made(aligned=True)
    table = probe.manifold_alignment(embeddings_UX)
    assert table["layer"].to_list() == [0, 1, None]
    assert table["items"].unique().to_list() == [80]
    assert (table["corrected"] > 0.2).all()
    assert (table["p_value"] == 1 / 201).all()


def test_routing_that_does_not_is_chance():
    probe, embeddings_UX = made(aligned=False)
    table = probe.manifold_alignment(embeddings_UX)
    assert (table["corrected"].abs() < 4 * table["chance_deviation"]).all()
    assert (table["p_value"] > 0.01).all()
    np.testing.assert_allclose(table["chance"], 8 / 79, rtol=0.1)


def test_alignment_equals_a_count_by_hand():
    probe, embeddings_UX = made(aligned=True, sequences=20, layers=1)
    routing_UE = np.sqrt(probe.layers[0].counts_UE / 200)
    unit_UX = embeddings_UX / np.linalg.norm(embeddings_UX, axis=1, keepdims=True)
    shared = []
    for u in range(20):
        nearest = [
            sorted(
                (v for v in range(20) if v != u),
                key=lambda v, points=points: np.linalg.norm(points[u] - points[v]),
            )[:3]
            for points in (unit_UX, routing_UE)
        ]
        shared.append(len(set(nearest[0]) & set(nearest[1])) / 3)
    table = probe.manifold_alignment(embeddings_UX, neighbours=3)
    assert table["alignment"][0] == pytest.approx(np.mean(shared))


def test_weights_are_what_is_compared_where_they_are_known():
    probe, embeddings_UX = made(aligned=True, weights=True)
    assert (probe.manifold_alignment(embeddings_UX)["p_value"] == 1 / 201).all()


def test_embeddings_of_tasks_compare_tasks():
    rng = np.random.default_rng(0)
    names = tuple("abcdefgh")
    place_D = np.arange(8)
    # Tasks on a line: neighbours by embedding share an expert.
    counts_DE = np.zeros((8, 9), int)
    counts_DE[place_D, place_D], counts_DE[place_D, place_D + 1] = 100, 100
    counts_UE = counts_DE.repeat(3, axis=0) + rng.integers(3, size=(24, 9))
    layer = LayerProbe(0, 1, counts_UE, np.zeros((0, 1), int), np.full(8, np.nan))
    probe = ProbeResult(names, place_D.repeat(3), np.full(24, 200), np.zeros(0, int), (layer,))
    angle_D = place_D / 8
    embeddings_DX = np.stack([np.cos(angle_D), np.sin(angle_D)], 1)
    row = probe.manifold_alignment(embeddings_DX, neighbours=2).row(0, named=True)
    assert row["items"] == 8
    assert row["alignment"] > 0.8
    assert row["p_value"] < 0.05


def test_items_of_one_embedding_are_not_taken_by_their_order():
    probe, _ = made(aligned=False)
    same_UX = np.ones((80, 3))
    table = probe.manifold_alignment(same_UX)
    assert (table["p_value"] > 0.01).all()


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        (np.ones((7, 3)), {}, r"shape \(7, 3\): 80 \(one for each sequence\) or 4 \(one for each"),
        (np.ones(80), {}, r"shape \(80,\)"),
        (np.full((80, 2), np.nan), {}, "row 0 has a number that is not finite"),
        ([["a"]] * 80, {}, "not an array of numbers"),
        (np.ones((80, 2)), {"neighbours": 79}, "neighbours: 79 of 80 .* 1 to 78 are needed"),
        (np.ones((80, 2)), {"neighbours": 0}, "neighbours: 0 of 80"),
        (np.ones((80, 2)), {"neighbours": "a"}, "neighbours: 'a'; a whole number, 1 to 78, is"),
        (np.ones((80, 2)), {"permutations": 1}, "permutations: 1; 2 or more are needed"),
    ],
)
def test_embeddings_that_cannot_be_are_one_line(embeddings, options, message):
    probe, _ = made(aligned=True)
    with pytest.raises(RoutingError, match=message) as caught:
        probe.manifold_alignment(embeddings, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_sequences_are_near_nobody(count):
    counts_UE = np.arange(1, 1 + 3 * count).reshape(count, 3)
    layer = LayerProbe(0, 1, counts_UE, np.zeros((0, 1), int), np.full(4, np.nan))
    place_U, none = np.arange(count), np.zeros(0, int)
    probe = ProbeResult(tuple("abcd"), place_U, np.full(count, 9), none, (layer,))
    message = f"^{count} sequences or domains have experts; 3 or more are needed"
    with pytest.raises(RoutingError, match=message):
        probe.manifold_alignment(np.ones((count, 2)))


def test_what_a_probe_keeps_by_sequence_is_read_as_it_was_written(tmp_path):
    probe, embeddings_UX = made(aligned=True, weights=True)
    save_probe(probe, tmp_path / "probe.npz")
    read = load_probe(tmp_path / "probe.npz")
    assert np.array_equal(read.layers[1].weight_UE, probe.layers[1].weight_UE)
    assert read.layers[1].zeros_UE is None
    for table in (read.manifold_alignment(embeddings_UX),):
        assert table.equals(probe.manifold_alignment(embeddings_UX))
