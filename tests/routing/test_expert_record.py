"""What is recorded of experts is read as it was; the numbers that are followed in training."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from counted_by_hand import same
from flips import flips
from made_experts import counted, made_layer

from mixopt.errors import RoutingError
from mixopt.routing import Assignments, ExpertCounts, ExpertRecord, training_scalars, trial_scalars
from mixopt.routing.diagnoses import KINDS


def assignments(seed=0):
    rng = np.random.default_rng(seed)
    layers = [
        made_layer(rng.integers(0, 9, size=(3, 4)), 0, router="attention"),
        made_layer(rng.integers(0, 9, size=(3, 4)), 0, router="mlp"),
        made_layer(rng.integers(0, 9, size=(3, 6)), 1, 2, dropped_D=[3, 0, 1]),
    ]
    return Assignments(("web", "code", "books"), tuple(layers))


@pytest.fixture
def record(tmp_path) -> ExpertRecord:
    made = ExpertRecord(tmp_path / "experts")
    for place in range(3):
        made.write_window(10 * place, 10 * place + 10, assignments(place))
    return made


def test_windows_are_read_as_they_were_written_and_those_of_later_steps_dropped(record):
    windows = record.windows()
    assert [(window.start, window.end) for window in windows] == [(0, 10), (10, 20), (20, 30)]
    assert all(same(one.assignments, assignments(place)) for place, one in enumerate(windows))
    record.cut(20)
    assert [window.end for window in record.windows()] == [10, 20]
    assert record.last_step == 20
    record.cut(0)
    assert (record.windows(), record.last_step) == ([], 0)


def test_parts_one_below_the_other_are_the_whole_run(record):
    table = pl.read_parquet(record.path / "counts" / "*.parquet")
    assert set(table.columns) == {
        *("step_start", "step_end", "domain", "layer", "router", "top_k", "expert"),
        *("tokens", "even", "odd"),
    }
    (layer,) = (layer for layer in assignments(1).layers if layer.layer == 1)
    of_layer = table.filter(layer=1, step_end=20)
    by_domain = of_layer.group_by("domain", maintain_order=True).agg(pl.col("tokens").sum())
    assert (by_domain["tokens"] // 2).to_list() == layer.tokens_D.tolist()
    assert of_layer.filter(pl.col("expert").is_null())["tokens"].to_list() == [3, 0, 1]


def test_a_flipped_bit_of_a_part_is_found_or_harmless(record):
    for _ in flips(record.part(20), step=997):
        try:
            found = record.windows()[1].assignments
        except RoutingError:
            continue
        assert same(found, assignments(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.reverse(), "does not have a count of each expert"),
        (lambda table: table.with_columns(even=pl.lit(-1)), "does not have a count of each expert"),
        (lambda table: table.with_columns(step_end=pl.lit(0)), "a window from step 10 to 0"),
    ],
)
def test_a_part_that_is_not_a_window_is_named(record, change, message):
    path = record.part(20)
    change(pl.read_parquet(path)).write_parquet(path)
    with pytest.raises(RoutingError, match=rf"part-00000020.parquet: .*{message}"):
        record.windows()


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
