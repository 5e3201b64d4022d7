"""The numbers that are followed while a model with experts trains: few names, right values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_experts import counted, made_layer

from mixopt.pretraining.metrics import line_names
from mixopt.routing import (
    Assignments,
    ExpertCounts,
    ScalarNames,
    training_scalars,
    trial_scalars,
)
from mixopt.routing.scalars import _BY_DOMAIN, _BY_LAYER, _OVER_ALL, BUDGET, KINDS, _layer


def names_of(named):
    """Return every name that a run can have."""
    by_layer = [f"{name}/{_layer(key)}" for name in _BY_LAYER for key in named.layers]
    by_domain = [f"{name}/{domain}" for name in _BY_DOMAIN for domain in named.domains]
    return [f"moe/{name}" for name in (*_OVER_ALL, *by_layer, *by_domain)]


# --- Names --------------------------------------------------------------------------------------


@given(
    layers=st.integers(1, 200),
    domains=st.integers(1, 120),
    others=st.integers(0, 350),
)
def test_a_run_never_has_more_names_than_the_budget(layers, domains, others):
    named = ScalarNames.within_budget(
        [str(n) for n in range(layers)], [f"d{d}" for d in range(domains)], others
    )
    names = names_of(named)
    assert len(names) == len(set(names)) <= BUDGET - others


@pytest.mark.parametrize("routers", [("",), ("attention", "mlp")])
def test_61_layers_of_256_experts_and_20_domains_have_at_most_400_names_in_all(routers):
    domains = tuple(f"d{d}" for d in range(20))
    ones = np.ones((20, 256), int)
    window = Assignments(
        domains, tuple(made_layer(ones, n, router=router) for n in range(61) for router in routers)
    )
    others, layers = line_names(domains, domains), list(window.sizes)
    named = ScalarNames.within_budget(layers, domains, len(others))
    assert named.domains == domains
    assert len(named.layers) >= 30
    assert {layers[0], layers[-1]} <= set(named.layers)
    values = training_scalars(window, named)
    assert f"moe/max_vio/layer_60{'_mlp' if len(routers) == 2 else ''}" in values
    assert set(values) <= set(names_of(named))
    assert len({*names_of(named), *others}) <= 400


def test_what_is_not_known_has_no_number():
    window = counted([np.array([[400, 0, 0, 0], [0, 0, 0, 0]])])
    values = training_scalars(window, ScalarNames(("0",), ("d0", "d1")))
    assert "moe/max_vio_domain/d1" not in values
    assert "moe/specialisation/mean" not in values
    assert all(np.isfinite(value) for value in values.values())


# --- Values -------------------------------------------------------------------------------------


def test_means_and_extremes_are_over_all_layers_with_a_name_or_not():
    even, one = np.full((2, 4), 1000), np.tile([4000, 0, 0, 0], (2, 1))
    values = training_scalars(counted([even, one, even]), ScalarNames(("0",), ()))
    assert values["moe/max_vio/mean"] == pytest.approx(1.0)
    assert values["moe/max_vio/max"] == pytest.approx(3.0)
    assert values["moe/max_vio/layer_00"] == pytest.approx(0.0)
    assert "moe/max_vio/layer_01" not in values
    assert values["moe/effective_experts/min"] == pytest.approx(0.25)
    assert values["moe/overflow/max"] == pytest.approx(1 - 1.25 / 4)
    assert values["moe/worst_rank/max"] == pytest.approx(4.0)
    assert values["moe/dead_experts/sum"] == 3
    assert values["moe/diagnoses/collapse"] == 1


def test_where_nothing_can_be_diagnosed_there_is_no_number_of_diagnoses():
    all_on_one_DE = np.zeros((2, 256), int)
    all_on_one_DE[:, 0] = 16_000
    few = counted([all_on_one_DE, all_on_one_DE])
    values = training_scalars(few, ScalarNames((), ()))
    assert values["moe/max_vio/max"] == 255
    assert values["moe/diagnoses/undiagnosed"] == 2
    assert not {f"moe/diagnoses/{kind}" for kind in KINDS} & set(values)


def test_a_domain_is_told_by_its_worst_layer():
    balanced = np.full((2, 4), 100)
    skewed = np.array([[100, 100, 100, 100], [400, 0, 0, 0]])
    values = training_scalars(counted([balanced, skewed]), ScalarNames((), ("d0", "d1")))
    assert values["moe/max_vio_domain/d0"] == pytest.approx(0.0)
    assert values["moe/max_vio_domain/d1"] == pytest.approx(3.0)
    assert values["moe/starved_experts/d1"] == 3


def test_load_is_of_training_and_what_compares_domains_of_held_out_text():
    even, apart = np.full((2, 4), 1000), np.array([[2000, 2000, 0, 0], [0, 0, 2000, 2000]])
    one = np.tile([4000, 0, 0, 0], (2, 1))
    counts = ExpertCounts(counted([one]), counted([apart]))
    values = trial_scalars(counts)
    assert values["moe/max_vio/layer_00"] == pytest.approx(3)
    assert values["moe/js_mean/d0"] == pytest.approx(1)
    assert values["moe/specialisation/layer_00"] == pytest.approx(1)
    assert "moe/max_vio/layer_01" not in values
    assert trial_scalars(replace(counts, train=counted([even])))["moe/dead_experts/sum"] == 0
