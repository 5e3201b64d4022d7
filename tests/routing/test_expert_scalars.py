"""The numbers that are followed while a model with experts trains: few names, right values."""

from dataclasses import replace

import numpy as np
import pytest
from made_experts import counted, made_layer

from mixopt.routing import Assignments, ExpertCounts, training_scalars, trial_scalars
from mixopt.routing.scalars import KINDS


def test_61_layers_of_256_experts_and_40_domains_have_at_most_32_members_each():
    domains = tuple(f"d{d}" for d in range(40))
    ones = np.ones((40, 256), int)
    routers = ("attention", "mlp")
    layers = (made_layer(ones, n, router=router) for n in range(61) for router in routers)
    values = training_scalars(Assignments(domains, tuple(layers)))
    members = [name for name in values if name.startswith("moe/max_vio/layer_")]
    ends = [name.rpartition("/")[2] for name in (members[0], members[-1])]
    assert ends == ["layer_00_attention", "layer_60_mlp"]
    assert len(members) == len([n for n in values if n.startswith("moe/js_mean/")]) == 32
    assert len(values) < 400


def test_what_is_not_known_has_no_number():
    window = counted([np.array([[400, 0, 0, 0], [0, 0, 0, 0]])])
    values = training_scalars(window)
    assert "moe/max_vio_domain/d1" not in values
    assert "moe/specialisation/mean" not in values
    assert all(np.isfinite(value) for value in values.values())


def test_means_and_extremes_are_over_all_layers_with_a_name_or_not():
    even, collapsed = np.full((2, 4), 1000), np.tile([4000, 0, 0, 0], (2, 1))
    values = training_scalars(counted([even, collapsed, even]))
    assert values["moe/max_vio/mean"] == pytest.approx(1.0)
    assert values["moe/max_vio/max"] == pytest.approx(3.0)
    assert values["moe/max_vio/layer_00"] == pytest.approx(0.0)
    assert values["moe/effective_experts/min"] == pytest.approx(0.25)
    assert values["moe/overflow/max"] == pytest.approx(1 - 1.25 / 4)
    assert values["moe/dead_experts/sum"] == 3
    assert values["moe/diagnoses/collapse"] == 1


def test_where_nothing_can_be_diagnosed_there_is_no_number_of_diagnoses():
    all_on_one_DE = np.zeros((2, 256), int)
    all_on_one_DE[:, 0] = 16_000
    few = counted([all_on_one_DE, all_on_one_DE])
    values = training_scalars(few)
    assert values["moe/max_vio/max"] == 255
    assert values["moe/diagnoses/undiagnosed"] == 2
    assert not {f"moe/diagnoses/{kind}" for kind in KINDS} & set(values)


def test_load_is_of_training_and_what_compares_domains_of_held_out_text():
    even, apart = np.full((2, 4), 1000), np.array([[2000, 2000, 0, 0], [0, 0, 2000, 2000]])
    collapsed = np.tile([4000, 0, 0, 0], (2, 1))
    counts = ExpertCounts(counted([collapsed]), counted([apart]))
    values = trial_scalars(counts)
    assert values["moe/max_vio/layer_00"] == pytest.approx(3)
    assert values["moe/js_mean/d0"] == pytest.approx(1)
    assert values["moe/specialisation/layer_00"] == pytest.approx(1)
    assert "moe/max_vio/layer_01" not in values
    assert trial_scalars(replace(counts, train=counted([even])))["moe/dead_experts/sum"] == 0
