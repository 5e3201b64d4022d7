"""A run's experts are drawn while it trains, by a process that nothing waits for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_experts import counted

from mixopt.reporting import ExpertDrawing, draw_step, drawn_files
from mixopt.routing import ExpertRecord

EVEN = np.full((2, 4), 1000)


@pytest.fixture
def run(tmp_path) -> Path:
    record = ExpertRecord(tmp_path / "run/experts")
    for end in (10, 20, 30):
        more = EVEN + 100 * end * np.eye(4, dtype=int)[0]
        record.write_window(end - 10, end, counted([more, EVEN]))
    return tmp_path / "run"


def pictures(run: Path) -> set[str]:
    return {file.stem for file in (run / "experts/images").glob("experts_load/*.png")}


def test_a_step_has_its_pictures_and_the_run_its_figures(run):
    files = draw_step(run, 30)
    figures, kept = drawn_files(run, [30])
    assert set(kept) <= set(files)
    assert set(files) <= {*figures, *kept}
    assert all(file.is_file() for file in files)


def test_the_slider_of_steps_begins_with_a_picture(run):
    draw_step(run, 10)
    draw_step(run, 20)
    first = (run / "experts/images/experts_load/00000000.png").read_bytes()
    assert first == (run / "experts/images/experts_load/00000010.png").read_bytes()


def test_what_came_after_a_step_is_not_in_its_picture(run):
    draw_step(run, 20)
    at_20 = (run / "experts/images/experts_load/00000020.png").read_bytes()
    draw_step(run, 30)
    at_30 = (run / "experts/images/experts_load/00000030.png").read_bytes()
    assert at_20 != at_30
    draw_step(run, 20)
    assert (run / "experts/images/experts_load/00000020.png").read_bytes() == at_20


def test_before_the_first_window_ends_there_is_nothing_to_draw(run):
    assert draw_step(run, 5) == []


@pytest.mark.nightly
def test_of_windows_that_end_while_one_is_drawn_the_last_is_drawn_next(run):
    said: list[str] = []
    with ExpertDrawing(run, said.append) as drawing:
        for step in (10, 20, 30):
            drawing.draw(step)
    assert pictures(run) == {"00000000", "00000010", "00000030"}, "nothing is waited for"
    assert said == []


def test_a_record_that_cannot_be_read_is_said_once(run):
    (run / "experts/counts/part-00000020.parquet").write_bytes(b"no table")
    said: list[str] = []
    for _ in range(2):
        with ExpertDrawing(run, said.append) as drawing:
            drawing.draw(30)
    drawing.draw(30)
    drawing.close()
    assert len(said) == 2, "once for each"
    assert said[0].endswith(f"say why by: mixopt experts {run}")


def test_what_is_being_drawn_is_given_up_when_a_run_stops(run):
    drawing = ExpertDrawing(run, pytest.fail)
    drawing.draw(30)
    drawing.close(waits=False)
    assert pictures(run) == set()


def test_a_run_that_goes_on_from_a_checkpoint_draws_later_steps_again(run):
    draw_step(run, 20)
    draw_step(run, 30)
    ExpertRecord(run / "experts").cut(20)
    assert pictures(run) == {"00000000", "00000020"}
