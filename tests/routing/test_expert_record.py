"""What is recorded of experts is read again as it was, and dropped from a step on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from made_experts import counted, probed

from mixopt.errors import RoutingError
from mixopt.routing import CountedWindow, ExpertRecord


def window(start, end, seed=0):
    counts = np.random.default_rng(seed).integers(0, 9, size=(2, 3, 4))
    return CountedWindow(start, end, counted(counts))


@pytest.fixture
def record(tmp_path) -> ExpertRecord:
    made = ExpertRecord(tmp_path / "experts")
    for place in range(3):
        made.write_window(window(10 * place, 10 * place + 10, seed=place))
        made.write_scalars(10 * place + 10, {"moe/max_vio/mean": 0.5 * place})
    return made


def test_windows_are_read_as_they_were_written(record):
    found = record.windows()
    assert [(one.start, one.end) for one in found] == [(0, 10), (10, 20), (20, 30)]
    for place, one in enumerate(found):
        expected = window(0, 1, seed=place).assignments
        assert one.assignments.domains == expected.domains
        for a, b in zip(one.assignments.layers, expected.layers, strict=True):
            for name, array in b.arrays().items():
                np.testing.assert_array_equal(a.arrays()[name], array, err_msg=name)


def test_parts_one_below_the_other_are_the_whole_run(record):
    table = pl.read_parquet(record.path / "counts" / "*.parquet")
    assert set(table.columns) == {
        *("step_start", "step_end", "domain", "layer", "router", "expert"),
        *("count", "even", "odd", "probability_sum"),
    }
    every = sum(w.assignments.tokens_D.sum() for w in record.windows())
    assert table.filter(layer=0)["count"].sum() == every
    tokens = table.filter(layer=1, step_end=20).group_by("domain", maintain_order=True)
    expected = window(0, 1, seed=1).assignments.layer(1).tokens_D
    assert tokens.agg(pl.col("count").sum())["count"].to_list() == expected.tolist()


def test_what_is_of_later_steps_is_dropped(record):
    probe = probed(np.zeros((1, 2, 8), int), [0, 1])
    record.write_probe(15, probe)
    record.write_probe(25, probe)
    with (record.path / "scalars.jsonl").open("a") as stream:
        stream.write('{"step": 2')  # half a line, as a killed process leaves
    record.cut(20)
    assert [one.end for one in record.windows()] == [10, 20]
    assert [step for step, _ in record.probes()] == [15]
    assert [line["step"] for line in record.scalars()] == [10, 20]
    record.cut(0)
    assert record.windows() == record.probes() == record.scalars() == []
    assert not record.is_there


def test_a_part_that_is_damaged_is_named(record):
    (record.path / "layers" / "part-00000020.parquet").write_bytes(b"PAR1")
    with pytest.raises(RoutingError, match=r"part-00000020.parquet: cannot be read"):
        record.windows()


def test_nothing_is_there_before_something_is_written(tmp_path):
    record = ExpertRecord(tmp_path / "experts")
    record.cut(10)
    assert record.windows() == record.beside == []
    assert record.last_probe() is None
    assert not record.path.exists()


def test_the_last_probe_is_of_the_latest_step_and_a_probe_alone_is_a_record(tmp_path):
    record = ExpertRecord(tmp_path / "experts")
    for step in (5, 15):
        record.write_probe(step, probed(np.full((1, 2, 8), step % 4), [0, 1]))
    assert record.is_there
    step, found = record.last_probe()
    assert step == 15
    assert found.layers[0].ids_TK[0, 0] == 3
    assert record.beside == [record.path / "probe"]


def test_a_file_that_is_being_written_is_left_alone(record):
    temporary = record.path / "counts" / ".part-00000030.parquet.tmp"
    temporary.touch()
    record.cut(20)
    assert temporary.exists()


def test_a_part_whose_bits_changed_is_named(record):
    path = next(path for path in (record.path / "counts").glob("part-*"))
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(RoutingError, match=rf"{path.name}: has changed since it was written"):
        record.windows()


def test_a_flipped_bit_of_a_part_is_found_or_harmless(record):
    path, before = record.path / "counts" / "part-00000020.parquet", record.windows()
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 97):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = record.windows()[1].assignments
        except RoutingError:
            continue
        for layer, expected in zip(found.layers, before[1].assignments.layers, strict=True):
            np.testing.assert_array_equal(layer.counts_DE, expected.counts_DE)


@pytest.mark.parametrize("line", ["[]", "{}", '{"step": "x"}', '{"step": NaN}', "{", "[" * 50_000])
def test_a_line_of_numbers_that_is_damaged_is_named(record, line):
    with (record.path / "scalars.jsonl").open("a") as stream:
        stream.write(line + "\n")
    for read in (record.scalars, lambda: record.cut(5)):
        with pytest.raises(RoutingError, match=r"scalars.jsonl: "):
            read()


def test_a_part_that_is_not_named_after_a_step_is_told(record):
    (record.path / "counts" / "part-x.parquet").touch()
    with pytest.raises(RoutingError, match=r"part-x.parquet: is not named after a step"):
        record.cut(5)


def test_a_recorded_window_is_read_when_it_is_looked_into(record):
    (window, *_), (held, *_) = record.recorded(), record.windows()
    assert (window.start, window.end, window.sizes) == (held.start, held.end, held.sizes)
    assert window.domains == held.assignments.domains
    assert window.assignments is not window.assignments, "it is not kept"
    for one, other in zip(window.tables, held.tables, strict=True):
        assert one.equals(other)
    (record.path / "counts" / f"part-{window.end:08d}.parquet").unlink()
    assert window.tables[0].height == len(window.sizes), "tables are kept"
    with pytest.raises(RoutingError, match="not found"):
        _ = window.assignments


def test_experts_of_a_run_are_read_without_torch():
    code = (
        "import sys, mixopt.reporting; mixopt.reporting.draw_step; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
