"""What is recorded of experts is read again as it was, and dropped from a step on."""

import numpy as np
import polars as pl
import pytest
from counted_by_hand import same
from flips import flips
from made_experts import made_layer

from mixopt.errors import RoutingError
from mixopt.routing import Assignments, ExpertRecord


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
    layer = assignments(1).layer(1)
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
