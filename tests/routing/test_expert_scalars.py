"""The numbers that are followed while a model with experts trains: few names, right values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_experts import NAMES, counted, probed

from mixopt.errors import RoutingError
from mixopt.pretraining.metrics import line_names
from mixopt.routing import (
    ExpertCounts,
    LayerInformation,
    ScalarNames,
    join_probes,
    measures,
    probe_scalars,
    training_scalars,
    trial_scalars,
)
from mixopt.routing.assignments import router_key, split_key
from mixopt.routing.scalars import BUDGET, KINDS, comparing_scalars

# --- Names --------------------------------------------------------------------------------------


@given(
    layers=st.integers(1, 200),
    domains=st.integers(1, 120),
    others=st.integers(0, 350),
)
def test_a_run_never_has_more_names_than_the_budget(layers, domains, others):
    named = ScalarNames.within_budget(range(layers), [f"d{d}" for d in range(domains)], others)
    names = named.all_names()
    assert len(names) == len(set(names)) <= BUDGET - others


@pytest.mark.parametrize("routers", [1, 2])
def test_61_layers_of_256_experts_and_20_domains_have_at_most_400_names_in_all(routers):
    domains = [f"d{d}" for d in range(20)]
    layers = [
        router_key(n, "" if routers == 1 else str(r)) for n in range(61) for r in range(routers)
    ]
    others = line_names(domains, domains)
    named = ScalarNames.within_budget(layers, domains, len(others))
    assert named.domains == tuple(domains)
    assert len(named.layers) >= 30
    assert {layers[0], layers[-1]} <= set(named.layers)
    window = counted(np.ones((61 * routers, 20, 256), int))
    keyed = zip(window.layers, layers, strict=True)
    made = [replace(la, layer=split_key(key)[0], router=split_key(key)[1]) for la, key in keyed]
    values = training_scalars(replace(window, layers=tuple(made)), named)
    assert f"moe/busiest/layer_60{'_1' if routers == 2 else ''}" in values
    assert set(values) <= set(named.all_names())
    assert len({*named.all_names(), *others}) <= 400


def test_up_to_73_domains_have_at_most_400_names_and_more_have_means_beside_their_losses():
    for count, names in ((73, 400), (74, 403), (200, 1033)):
        domains = [f"d{d}" for d in range(count)]
        others = line_names(domains, domains)
        named = ScalarNames.within_budget(range(61), domains, len(others))
        assert len({*named.all_names(), *others}) <= names
        assert len(others) == 11 + 5 * count
        assert len(named.all_names()) == 22


def test_16_layers_and_8_domains_all_have_names():
    domains = [f"d{d}" for d in range(8)]
    others = len(line_names(domains, domains))
    named = ScalarNames.within_budget(range(16), domains, others)
    assert named == ScalarNames(tuple(map(str, range(16))), tuple(domains))


def test_layers_that_have_names_are_spread_over_the_model():
    named = ScalarNames.within_budget(range(3, 203), NAMES)
    assert named.layers[0] == "3"
    assert named.layers[-1] == "202"
    assert set(np.diff([int(one) for one in named.layers])) <= {2, 3, 4}


def test_no_value_has_a_name_that_was_not_announced():
    rng = np.random.default_rng(0)
    window = counted(1000 * rng.integers(1, 50, size=(48, 20, 128)), top_k=8)
    named = ScalarNames.within_budget([la.layer for la in window.layers], window.domains)
    values = training_scalars(window, named)
    ids = rng.integers(0, 4, size=(48, 1024, 100))
    probe = probed(ids, np.arange(1024) % 2)
    both = ScalarNames.within_budget(range(48), NAMES)
    found = probe_scalars(probe, probe, both)
    assert set(values) <= set(named.all_names())
    assert set(found) <= set(both.all_names())
    assert set(both.all_names()) == set(found) | set(
        training_scalars(replace(window.only({"d0": "web", "d1": "code"})), both)
    )


def test_a_domain_may_be_called_as_a_mean_over_layers_is():
    domains = ("mean", "max", "sum", "min")
    named = ScalarNames.within_budget(range(3), domains)
    assert len(named.all_names()) == len(set(named.all_names()))
    uneven = replace(counted([np.diag([2000, 1000])]), domains=domains[:2])
    layers = tuple(replace(la, entropy_D=np.array([0.0, 1000 * np.log(2)])) for la in uneven.layers)
    values = training_scalars(replace(uneven, layers=layers), named)
    assert values["moe/router_entropy_domain/mean"] == pytest.approx(0.0)
    assert values["moe/router_entropy/mean"] == pytest.approx(1 / 3)


# --- Values -------------------------------------------------------------------------------------


def test_means_and_extremes_are_over_all_layers_with_a_name_or_not():
    even, one = np.full((2, 4), 1000), np.tile([4000, 0, 0, 0], (2, 1))
    values = training_scalars(counted([even, one, even]), ScalarNames(("0",), ()))
    assert values["moe/busiest/mean"] == pytest.approx(2.0)
    assert values["moe/busiest/max"] == pytest.approx(4.0)
    assert values["moe/busiest/layer_00"] == pytest.approx(1.0)
    assert "moe/busiest/layer_01" not in values
    assert values["moe/effective_experts/min"] == pytest.approx(0.25)
    assert values["moe/overflow/max"] == pytest.approx(1 - 1.25 / 4)
    assert values["moe/worst_rank/max"] == pytest.approx(4.0)
    assert values["moe/dead_experts/sum"] == 3
    assert values["moe/diagnoses/collapse"] == 1
    assert values["moe/lb_loss/mean"] == pytest.approx(1.0)


def test_where_nothing_can_be_diagnosed_there_is_no_number_of_diagnoses():
    all_on_one_DE = np.zeros((2, 256), int)
    all_on_one_DE[:, 0] = 16_000
    few = counted([all_on_one_DE, all_on_one_DE])
    values = training_scalars(few, ScalarNames((), ()))
    assert values["moe/busiest/max"] == 256
    assert values["moe/diagnoses/undiagnosed"] == 2
    assert not {f"moe/diagnoses/{kind}" for kind in KINDS} & set(values)


def test_a_window_of_few_assignments_is_diagnosed_by_a_wider_one():
    all_on_one_DE = np.zeros((2, 256), int)
    all_on_one_DE[:, 0] = 16_000
    few, many = counted([all_on_one_DE]), counted([10 * all_on_one_DE])
    values = training_scalars(few, ScalarNames((), ()), wider=many)
    assert values["moe/diagnoses/collapse"] == 1
    assert values["moe/diagnoses/undiagnosed"] == 0


def test_of_layers_some_of_which_can_be_diagnosed_the_others_are_counted():
    one_DE, few_DE = np.tile([4000, 0, 0, 0], (2, 1)), np.full((2, 4), 10)
    values = training_scalars(counted([one_DE, few_DE]), ScalarNames((), ()))
    assert values["moe/diagnoses/collapse"] == values["moe/diagnoses/undiagnosed"] == 1


def test_the_load_of_the_worst_rank_is_of_the_ranks_that_are_given():
    window = counted([np.array([[400, 0, 0, 0], [0, 0, 100, 100]])])
    for ranks, load in ((None, 4 * 400 / 600), (2, 2 * 400 / 600), (1, 1.0)):
        values = training_scalars(window, ScalarNames((), ()), ranks=ranks)
        assert values["moe/worst_rank/max"] == pytest.approx(load)


def test_a_domain_is_told_by_its_worst_layer():
    balanced = np.full((2, 4), 100)
    skewed = np.array([[100, 100, 100, 100], [400, 0, 0, 0]])
    values = training_scalars(counted([balanced, skewed]), ScalarNames((), ("d0", "d1")))
    assert values["moe/busiest_domain/d0"] == pytest.approx(1.0)
    assert values["moe/busiest_domain/d1"] == pytest.approx(4.0)
    assert values["moe/starved_experts/d1"] == 3
    assert values["moe/router_entropy_domain/d1"] == pytest.approx(1.0)


def test_what_is_not_known_has_no_number():
    empty = counted([np.array([[400, 0, 0, 0], [0, 0, 0, 0]])])
    layers = tuple(replace(la, probability_DE=0 * la.probability_DE) for la in empty.layers)
    values = training_scalars(replace(empty, layers=layers), ScalarNames(("0",), ("d0", "d1")))
    assert "moe/busiest_domain/d1" not in values
    assert "moe/router_entropy_domain/d1" not in values
    assert "moe/router_entropy/mean" not in values
    assert all(np.isfinite(value) for value in values.values())


def test_information_is_told_less_chance_and_only_of_enough_text():
    rng = np.random.default_rng(0)
    domain_U = np.arange(1024) % 2
    apart = domain_U[:, None] * 2 + rng.integers(0, 2, size=(1024, 100))
    alike = rng.integers(0, 4, size=(1024, 100))
    named = ScalarNames(("0", "1"), NAMES)
    values = probe_scalars(probed([apart, alike], domain_U), None, named)
    assert values["moe/mi/layer_00"] == pytest.approx(np.log(2), abs=0.01)
    assert values["moe/mi/layer_01"] == pytest.approx(0.0, abs=1e-4)
    assert values["moe/mi_null/mean"] > 0
    assert values["moe/specialisation/mean"] == pytest.approx(0.5, abs=0.01)
    profiles = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    between = measures.profile_distances(profiles)[0, 1]
    assert values["moe/js_mean/web"] == pytest.approx(between / 2, abs=0.02)
    few = probed([apart[:512], alike[:512]], domain_U[:512])
    assert probe_scalars(few, None, named) == {}


def test_saturation_is_the_share_of_choices_that_stayed():
    before, now = np.zeros((2, 8), int), np.zeros((2, 8), int)
    now[:, :2] = 3
    named = ScalarNames(("0",), NAMES)
    values = probe_scalars(probed([now], [0, 1]), probed([before], [0, 1]), named)
    assert values == {"moe/saturation/mean": 0.75, "moe/saturation/layer_00": 0.75}
    other = probed([before], [1, 0])
    assert probe_scalars(probed([now], [0, 1]), other, named) == {}


# --- Probes of several ranks ---------------------------------------------------------------------


def test_parts_of_a_probe_are_the_probe():
    rng = np.random.default_rng(0)
    ids, domain_U = rng.integers(0, 4, size=(2, 10, 16)), np.arange(10) % 2
    whole = probed(ids, domain_U)
    joined = join_probes([probed(ids[:, :4], domain_U[:4]), probed(ids[:, 4:], domain_U[4:])])
    for name in ("domain_U", "tokens_U", "domain_T"):
        assert np.array_equal(getattr(whole, name), getattr(joined, name))
    for one, other in zip(whole.layers, joined.layers, strict=True):
        assert np.array_equal(one.counts_UE, other.counts_UE)
        assert np.array_equal(one.ids_TK, other.ids_TK)


def test_the_share_of_shared_experts_is_a_mean_over_tokens_of_those_that_are_known():
    def part(sequences, shared_D):
        made = probed(np.zeros((1, sequences, 4), int), [0] * sequences)
        return replace(made, layers=(replace(made.layers[0], shared_D=np.array(shared_D)),))

    shared_D = join_probes([part(1, [0.2, np.nan]), part(3, [0.6, np.nan])]).layers[0].shared_D
    assert shared_D[0] == pytest.approx(0.5)
    assert np.isnan(shared_D[1])


def test_parts_of_a_probe_are_of_the_same_experts():
    parts = [probed(np.zeros((1, 2, 4), int), [0, 1], experts=experts) for experts in (4, 5)]
    with pytest.raises(RoutingError, match="a part of the probe is of other experts: layer 0 has"):
        join_probes(parts)


def test_numbers_that_are_not_known_have_no_name():
    named = ScalarNames(("0", "1"), NAMES)
    told = [(0, float("nan"), 0.25, None), (1, float("nan"), 0.75, None)]
    held_out = probed(np.zeros((1, 2, 4), int), [0, 0]).assignments()
    assert comparing_scalars(told, held_out, named) == {"moe/mi_null/mean": 0.5}


def test_starved_experts_of_a_domain_are_of_all_layers():
    counts_DE = np.array([[9_000, 9_000, 9_000, 9_000], [9_000, 9_000, 100, 100]])
    window = counted([counts_DE, counts_DE, 9_000 * np.ones((2, 4), int)])
    named = ScalarNames((), ("d0", "d1"))
    values = training_scalars(window, named)
    assert values["moe/starved_experts/d0"] == 0
    assert values["moe/starved_experts/d1"] == 2 * 2


def test_load_is_of_training_and_what_compares_domains_of_held_out_text():
    even, apart = np.full((2, 4), 1000), np.array([[2000, 2000, 0, 0], [0, 0, 2000, 2000]])
    one = np.tile([4000, 0, 0, 0], (2, 1))
    counts = ExpertCounts(counted([one]), counted([apart]), (LayerInformation(0, 3, 1, 2, 0.5),))
    values = trial_scalars(counts)
    assert values["moe/busiest/layer_00"] == pytest.approx(4)
    assert values["moe/js_mean/d0"] == pytest.approx(1)
    assert values["moe/mi/layer_00"] == 2
    assert "moe/busiest/layer_01" not in values
    assert trial_scalars(replace(counts, train=counted([even])))["moe/dead_experts/sum"] == 0
