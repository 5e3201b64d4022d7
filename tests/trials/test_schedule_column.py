"""A column `schedule` says which rows of a table are finished runs."""

import pytest

from mixopt.errors import TrialsError
from mixopt.trials import Trials

HEAD = "run,parameters,tokens,schedule,web,code\n"
ROWS = (
    "a,100,500,{},0.5,0.5\n"
    "b,100,1000,1,0.5,0.5\n"
    "c,100,2000,1,0.5,0.5\n"
    "d,100,1000,1,0.25,0.75\n"
    "e,200,1000,1,0.5,0.5\n"
)
LOSSES = "run,web\na,4\nb,3\nc,2\nd,3.5\ne,2.5\n"


@pytest.fixture
def read(tmp_path):
    def read_csv(share, rows=ROWS):
        (tmp_path / "w.csv").write_text(HEAD + rows.format(share))
        (tmp_path / "l.csv").write_text(LOSSES)
        return Trials.from_csv(tmp_path / "w.csv", tmp_path / "l.csv")

    return read_csv


def test_rows_before_the_end_of_their_schedule_are_left_out_and_said(read):
    found = read("0.5")
    assert found.table["trial"].to_list() == ["b", "c", "d", "e"]
    assert found.losses()[:, 0].tolist() == [3, 2, 3.5, 2.5]
    assert "left out 1 of 5 rows before the end of their schedule: 'a'" in found.notes[0]


def test_finished_runs_of_one_mixture_and_model_have_seeds_of_their_own(read):
    assert read("1").table["seed"].to_list() == [0, 1, 2, 0, 0]
    assert read("1").notes == ()


@pytest.mark.parametrize("share", ["0", "1.5"])
def test_a_share_that_is_none_is_named(read, share):
    with pytest.raises(TrialsError, match=rf"row a: schedule: is {share}; need the share"):
        read(share)


def test_a_table_without_a_finished_run_is_refused(read):
    with pytest.raises(TrialsError, match="schedule: no row is at 1.*give the last row of each"):
        read("0.5", ROWS.replace(",1,0", ",0.5,0"))
