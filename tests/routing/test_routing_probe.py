"""A probe tells domains apart beyond chance, and a checkpoint from an earlier one."""

import contextlib

import numpy as np
import pytest
import torch
from routing_job import DOMAINS, batches, tiny
from torch import nn

from mixopt.errors import RoutingError
from mixopt.routing import (
    ENOUGH_SEQUENCES,
    LayerProbe,
    ProbeResult,
    RouterStats,
    RouterTap,
    Summary,
    load_probe,
    save_probe,
)


def probed(model, stats, data, **options):
    with stats.probe(**options) as probe, torch.no_grad():
        for tokens, ids, mask in data:
            with stats.domains(ids, mask):
                model(tokens)
    return probe.result()


def drawn(profile_DE, sequences=240, tokens=32, seed=0, shared=None):
    """Return a probe of sequences whose tokens resemble each other, one expert each."""
    rng = np.random.default_rng(seed)
    domains, experts = profile_DE.shape
    domain_U = np.arange(sequences) % domains
    own_UE = [rng.dirichlet(4 * experts * profile_DE[d]) for d in domain_U]
    counts_UE = np.array([rng.multinomial(tokens, own_E) for own_E in own_UE])
    layer = LayerProbe(
        layer=5,
        top_k=1,
        counts_UE=counts_UE,
        ids_TK=np.zeros((0, 1), np.int64),
        shared_D=np.full(domains, np.nan) if shared is None else np.array(shared),
    )
    names = tuple("abcd"[:domains])
    return ProbeResult(names, domain_U, np.full(sequences, tokens), np.zeros(0, np.int64), (layer,))


def test_a_probe_counts_in_evaluation_and_leaves_the_counts_of_training_alone():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS, evaluation=True)
    for tokens, ids, mask in data:
        with stats.domains(ids, mask):
            model(tokens)
    before = stats.total()
    result = probed(model.eval(), stats, data)
    for trained, seen in zip(before.layers, result.assignments().layers, strict=True):
        assert np.array_equal(trained.counts_DE, seen.counts_DE)
        assert np.array_equal(trained.tokens_D, seen.tokens_D)
    assert stats.total().tokens_D.sum() == before.tokens_D.sum()


def test_sequences_are_kept_apart_and_by_domain():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    stats = RouterStats.attach(model, DOMAINS)
    two = ids[:, None].expand_as(tokens).clone()
    two[1, :2] = (ids[1] + 1) % 3
    result = probed(model, stats, [(tokens, two, mask)])
    assert len(result.domain_U) == len(tokens) + 1
    assert result.tokens_U.sum() == mask.sum()
    for layer in result.layers:
        assert np.array_equal(layer.counts_UE.sum(1), result.tokens_U * 2)
    assert not result.enough


def test_experts_of_the_first_tokens_are_kept():
    model, data = tiny(), batches()
    result = probed(model, RouterStats.attach(model, DOMAINS), data, tokens=30)
    assert [layer.ids_TK.shape for layer in result.layers] == [(30, 2)] * 2
    expected = np.concatenate(
        [ids[:, None].expand_as(mask)[mask.bool()].numpy() for _, ids, mask in data]
    )
    assert np.array_equal(result.domain_T, expected[:30])


def test_what_is_measured_of_alike_domains_is_chance():
    table = drawn(np.ones((4, 8)) / 8).specialisation(permutations=100)
    row = table.row(0, named=True)
    assert row["layer"] == 5
    assert abs(row["corrected"]) < 4 * row["chance_deviation"]
    assert row["information"] > 2 * abs(row["corrected"])  # what is taken off is most of it
    assert row["p_value"] > 0.01


def test_domains_with_experts_of_their_own_are_beyond_chance():
    profile_DE = 0.9 * np.kron(np.eye(4), np.ones((1, 2))) / 2 + 0.1 / 8
    row = drawn(profile_DE).specialisation(permutations=100).row(0, named=True)
    assert row["p_value"] == pytest.approx(1 / 101)
    assert row["specialisation"] > 0.5


def test_the_same_seed_shuffles_alike():
    probe = drawn(np.ones((4, 8)) / 8)
    one, two = (probe.specialisation(permutations=10, seed=3) for _ in range(2))
    assert one.equals(two)


def test_coactivation_is_of_all_pairs_of_a_tokens_experts():
    ids_TK = np.array([[0, 1, 2], [0, 1, 3], [2, 0, 1], [3, 2, 4]])  # 4: dropped
    layer = LayerProbe(1, 3, np.array([[3, 3, 3, 2]]), ids_TK, np.full(2, np.nan))
    zero = np.zeros(1, np.int64)
    probe = ProbeResult(("a", "b"), zero, np.array([4]), np.array([0, 0, 0, 1]), (layer,))
    expected = [
        [1, 1, 2 / 3, 1 / 3],
        [1, 1, 2 / 3, 1 / 3],
        [2 / 3, 2 / 3, 1, 1 / 3],
        [0.5] * 3 + [1],
    ]
    np.testing.assert_allclose(probe.coactivation(1), expected)
    np.testing.assert_allclose(probe.coactivation(1, "b")[2], [0, 0, 1, 1])
    with pytest.raises(RoutingError, match="no layer 0 with domain None"):
        probe.coactivation(0)


def test_saturation_is_the_share_of_experts_that_stay():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    earlier = probed(model, stats, data)
    assert set(probed(model, stats, data).saturation(earlier)["saturation"]) == {1.0}
    with torch.no_grad():
        model.layers[2].router.weight.neg_()
        model.layers[2].router.bias.neg_()
    # The largest two of four negated are the other two.
    now = probed(model, stats, data).saturation(earlier)
    assert set(now.filter(layer=1)["saturation"]) == {1.0}
    assert set(now.filter(layer=2)["saturation"]) == {0.0}


def test_a_probe_is_compared_with_one_of_the_same_tokens_and_experts():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    whole = probed(model, stats, data)
    with pytest.raises(RoutingError, match="of other tokens; probe the same batches"):
        whole.saturation(probed(model, stats, data[:1]))
    with pytest.raises(RoutingError, match="the earlier probe counts the domains a, b, c, d"):
        whole.saturation(drawn(np.ones((4, 8)) / 8))


def test_a_probe_is_read_as_it_was_written(tmp_path):
    model, data = tiny(), batches()
    probe = probed(model, RouterStats.attach(model, DOMAINS), data)
    save_probe(probe, tmp_path / "probe.npz")
    read = load_probe(tmp_path / "probe.npz")
    assert read.domains == probe.domains
    assert np.array_equal(read.domain_U, probe.domain_U)
    assert set(read.saturation(probe)["saturation"]) == {1.0}
    for one, other in zip(read.layers, probe.layers, strict=True):
        assert np.array_equal(one.counts_UE, other.counts_UE)
        assert one.counts_UE.dtype == one.ids_TK.dtype == np.int64
        assert np.array_equal(one.shared_D, other.shared_D, equal_nan=True)


def test_what_is_no_probe_is_refused(tmp_path):
    (tmp_path / "other.npz").write_bytes(b"no")
    np.savez(tmp_path / "empty.npz", a=np.zeros(1))
    said = {"other": "cannot be read", "empty": "not a probe of experts", "absent": "not found"}
    for name, message in said.items():
        with pytest.raises(RoutingError, match=f"{name}.npz: {message}"):
            load_probe(tmp_path / f"{name}.npz")


def test_a_shared_expert_that_serves_one_domain_is_degradation():
    counts = drawn(np.ones((4, 8)) / 8, sequences=1200).assignments()
    for shared, expected in (([0.8, 0.3, 0.3, 0.3], ["a"]), ([0.4, 0.3, 0.3, 0.3], [])):
        probe = drawn(np.ones((4, 8)) / 8, shared=shared)
        found = Summary.of(counts, probe=probe).diagnoses
        assert [one.domain for one in found] == expected
    assert Summary.of(counts).diagnoses == ()


def test_a_probe_without_batches_or_with_a_half_one_says_so():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    stats = RouterStats.attach(model, DOMAINS)
    with stats.probe() as probe, pytest.raises(RoutingError, match="saw no batch"):
        probe.result()
    with (
        stats.probe(),
        pytest.raises(RoutingError, match=r"'layers.1.tap' did not run"),
        stats.domains(ids, mask),
    ):
        pass
    with (
        stats.probe(),
        pytest.raises(RoutingError, match="ran twice inside one"),
        stats.domains(ids, mask),
    ):
        model(tokens), model(tokens)


def of_sequences(domain_U, tokens_U, layers=()):
    empty = np.zeros(0, np.int64)
    return ProbeResult(("a", "b"), np.array(domain_U), np.array(tokens_U), empty, tuple(layers))


@pytest.mark.parametrize(
    ("sequences", "tokens", "enough"),
    [
        (ENOUGH_SEQUENCES, (100, 100), True),
        (ENOUGH_SEQUENCES - 1, (100, 100), False),
        (ENOUGH_SEQUENCES, (100, 50), False),
        (ENOUGH_SEQUENCES // 2, (1000, 1000), False),
    ],
)
def test_enough_is_so_many_sequences_and_tokens_of_each_domain(sequences, tokens, enough):
    domain_U = np.arange(sequences) % 2
    assert of_sequences(domain_U, np.take(tokens, domain_U)).enough is enough


def layer_of(counts_UE, ids_TK=((),), number=0, top_k=1):
    unknown = np.full(2, np.nan)
    return LayerProbe(number, top_k, np.array(counts_UE), np.array(ids_TK, int), unknown)


def test_the_sequences_of_a_domain_go_to_the_halves_in_turn_whatever_their_order():
    counts_UE = np.eye(6, dtype=int) * 4
    probe = of_sequences([0, 0, 1, 0, 1, 1], [5] * 6, [layer_of(counts_UE)])
    layer = probe.assignments().layers[0]
    assert layer.counts_HDE[0].tolist() == [[4, 0, 0, 4, 0, 0], [0, 0, 4, 0, 0, 4]]
    assert layer.counts_HDE[1].tolist() == [[0, 4, 0, 0, 0, 0], [0, 0, 0, 0, 4, 0]]
    assert layer.dropped_D.tolist() == [3, 3]
    assert layer.tokens_D.tolist() == [15, 15]


def test_each_layer_is_held_against_its_own_chance():
    rng = np.random.default_rng(0)
    domain_U = np.arange(40) % 2
    layers = [
        layer_of(rng.multinomial(32, rng.dirichlet(np.full(4, spread)), 40), number=number)
        for number, spread in enumerate((0.3, 30.0))
    ]
    layers[1] = layer_of(rng.multinomial(4, np.full(4, 0.25), 40), number=1)
    both = of_sequences(domain_U, [32] * 40, layers).specialisation(permutations=20)
    for place, layer in enumerate(layers):
        alone = of_sequences(domain_U, [32] * 40, [layer]).specialisation(permutations=20)
        for name in set(both.columns) - {"router"}:
            np.testing.assert_allclose(both[name][place], alone[name][0], err_msg=name)


def test_choices_that_were_dropped_both_times_did_not_stay():
    kept = np.zeros(2, np.int64)
    before, now = (
        ProbeResult(("a", "b"), kept, kept + 1, kept, (layer_of([[1, 1, 0]] * 2, ids, top_k=2),))
        for ids in ([[0, 3], [3, 3]], [[0, 3], [3, 1]])
    )
    assert now.saturation(before)["saturation"].to_list() == [0.25, None]


def test_a_batch_that_an_error_interrupts_is_not_in_the_probe():
    model, data = tiny(), batches(2)
    stats = RouterStats.attach(model, DOMAINS)
    with stats.probe() as probe:
        for (tokens, ids, mask), error in zip(data, (KeyError, None), strict=True):
            with contextlib.suppress(KeyError), stats.domains(ids, mask):
                model(tokens)
                if error:
                    raise error
    assert probe.result().tokens_U.sum() == data[1][2].sum()


def test_tokens_of_no_domain_are_not_probed():
    model = tiny()
    with (
        RouterStats.attach(model, DOMAINS).probe() as probe,
        pytest.raises(RoutingError, match="2 tokens of the probe are of no domain"),
    ):
        probe.begin(torch.tensor([[0, 3, 4], [3, 1, 2]]))


class Times(nn.Module):
    """Multiplies by a number, or is that number for each token."""

    def __init__(self, number, *, is_constant=False):
        super().__init__()
        self.number, self.is_constant = number, is_constant

    def forward(self, x):
        return torch.full_like(x[..., :1], self.number) if self.is_constant else self.number * x


class Shared(nn.Module):
    """A layer of routed experts and a shared one, by the names of Hugging Face's."""

    def __init__(self, gate=None):
        super().__init__()
        self.gate = RouterTap(experts=2, top_k=1)
        self.shared_expert, self.experts = Times(3.0), Times(1.0)
        if gate is not None:
            self.shared_expert_gate = Times(gate, is_constant=True)

    def forward(self, x):
        self.gate(torch.zeros(len(x), 1, dtype=torch.long))
        if hasattr(self, "shared_expert_gate"):
            self.shared_expert_gate(x)
        return self.shared_expert(x) + self.experts(x)


@pytest.mark.parametrize(("gate", "share"), [(None, 3 / 4), (0.0, 1.5 / 2.5)])
def test_the_share_of_a_shared_expert_is_of_sizes_times_its_gate(gate, share):
    model = Shared(gate)
    stats = RouterStats.attach(model, ["a", "b"])
    with stats.probe() as probe, stats.domains(torch.tensor([[0, 0, 0, 0]])):
        model(torch.randn(4, 8))
    assert probe.result().layers[0].shared_D[0] == pytest.approx(share)
    assert np.isnan(probe.result().layers[0].shared_D[1])
    others = [module for module in model.modules() if module is not model.gate]
    assert not any(module._forward_hooks for module in others)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("domain_U", np.array([99]), "domain_U: there are 3 domains"),
        ("domain_U", np.zeros((2, 2), np.int64), r"domain_U: has shape \(2, 2\)"),
        ("counts_UE", np.zeros(3, np.int64), r"counts_UE: has shape \(3,\)"),
        (
            "about",
            np.frombuffer(b'{"layers": [[0]], "domains": []}', np.uint8),
            "domain_U: there are 0",
        ),
        ("about", np.frombuffer(b"[]", np.uint8), "about: a list is not a mapping"),
    ],
)
def test_parts_of_a_probe_that_do_not_fit_are_named(tmp_path, name, array, message):
    model, data = tiny(), batches()
    save_probe(probed(model, RouterStats.attach(model, DOMAINS), data), tmp_path / "probe.npz")
    with np.load(tmp_path / "probe.npz") as file:
        arrays = {key: array if key.endswith(name) else file[key] for key in file}
    np.savez(tmp_path / "probe.npz", **arrays)
    with pytest.raises(RoutingError, match=f"probe.npz: not a probe of experts: .*({message})"):
        load_probe(tmp_path / "probe.npz")
