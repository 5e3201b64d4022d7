"""Tables as others write them: read as they are, or refused in one line that says what mends it."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, strategies as st

from mixopt.errors import TrialsError
from mixopt.trials import Trials
from mixopt.trials.cell_table import CellTable

MIXTURES = "run,web,code\na,0.5,0.5\nb,0.25,0.75\nc,0.9,0.1\n"
LOSSES = "run,web_loss,code_loss\nc,1.0,2.0\na,1.5,1.25\nb,1.75,1.0\n"
# The layout of the tables in allenai/olmix: row numbers without a name, names that hold colons.
OLMIX_RATIOS = """\
,run,name,index,s2pdf:science_tech,existing
0,hi7doihy,5xC-30m-seed-0-2107bb64-0000,0,0.25,0.75
1,2e10,5xC-30m-seed-0-2107bb64-0001,1,0.30000000000000004,0.7000000000000001
"""
OLMIX_METRICS = """\
,run,name,index,arc_easy:rc::olmes,mt_mbpp_v2fix:bash
0,hi7doihy,5xC-30m-seed-0-2107bb64-0000,0,1.6064012879257719,3.9372518930434484
1,2e10,5xC-30m-seed-0-2107bb64-0001,1,1.428111658206209,3.414946051347682
"""


@pytest.fixture
def read(tmp_path):
    def read_csv(mixtures=MIXTURES, losses=LOSSES, **options):
        (tmp_path / "w.csv").write_text(mixtures)
        (tmp_path / "l.csv").write_text(losses)
        return Trials.from_csv(tmp_path / "w.csv", tmp_path / "l.csv", **options)

    return read_csv


def test_the_tables_of_olmix_are_read_as_they_are(read):
    found = read(OLMIX_RATIOS, OLMIX_METRICS, unit="bits_per_byte")
    assert found.domains == ("s2pdf:science_tech", "existing")
    assert found.targets == ("arc_easy:rc::olmes", "mt_mbpp_v2fix:bash")
    assert found.table["trial"].to_list() == ["hi7doihy", "2e10"]
    assert found.losses("bits_per_byte")[1].tolist() == [1.428111658206209, 3.414946051347682]
    assert found.notes == ()


def test_tables_for_olmix_are_joined_by_run_id(read):
    tables = [text.replace("run,", "run_id,") for text in (MIXTURES, LOSSES)]
    assert read(*tables) == read()


def test_losses_in_bits_per_byte_are_kept_as_such(read):
    found = read(unit="bits_per_byte")
    assert (found.unit, found.has("nats_per_token")) == ("bits_per_byte", False)
    with pytest.raises(TrialsError, match="in nats_per_token; set objective.unit: bits_per_byte"):
        found.losses()


@pytest.mark.parametrize("ending", [".parquet", ".PQ"])
def test_parquet_gives_what_csv_gives(read, tmp_path, ending):
    paths = []
    for name, text in (("w", MIXTURES), ("l", LOSSES)):
        paths.append(tmp_path / f"{name}{ending}")
        pl.read_csv(text.encode()).write_parquet(paths[-1])
    assert Trials.from_csv(*paths) == read()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_of_parquet_are_read_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("numbers") / "t.parquet"
    pl.DataFrame({"run": [str(n) for n in range(len(values))], "x": values}).write_parquet(path)
    table = CellTable.read(path)
    assert table.numbers(["x"], table.column("run"))[:, 0].tolist() == values


def test_parquet_that_is_none_is_named(tmp_path):
    (tmp_path / "w.parquet").write_text("run,a\n")
    with pytest.raises(TrialsError, match=r"w.parquet: cannot be read: "):
        Trials.from_csv(tmp_path / "w.parquet", tmp_path / "w.parquet")


@pytest.mark.parametrize("missing", ["", "NA", "inf"])
def test_an_incomplete_row_is_named_with_what_leaves_it_out(read, missing):
    said = f"is {missing}" if missing else "is empty"
    message = f"l.csv: row a: web_loss: {said}; fill it in, or leave such rows out: --ignore inc"
    with pytest.raises(TrialsError, match=message):
        read(losses=LOSSES.replace("a,1.5", f"a,{missing}"))
    found = read(losses=LOSSES.replace("a,1.5", f"a,{missing}"), drop_incomplete=True)
    assert found.table["trial"].to_list() == ["b", "c"]
    assert found.notes[0].endswith("l.csv: left out 1 of 3 rows that lack a number: 'a'")


def test_rows_of_one_table_alone_are_left_out_if_asked_and_said(read):
    tables = (MIXTURES + "d,0.5,0.5\n", LOSSES + "e,1.0,1.0\n")
    with pytest.raises(TrialsError, match=r"lack 'd', .* lacks 'e', .*: --ignore incomplete"):
        read(*tables)
    found = read(*tables, drop_incomplete=True)
    assert found == read()
    assert [note.split("left out ")[1].split(",")[0] for note in found.notes] == ["'d'", "'e'"]


def test_a_loss_that_no_row_has_is_left_out_if_asked_and_said(read):
    losses = "run,web_loss,none_loss\na,1.5,\nb,1.75,\nc,1.0,\n"
    found = read(losses=losses, drop_incomplete=True)
    assert found.targets == ("web",)
    assert found.notes[0].endswith("l.csv: left out 'none_loss', empty in every row")


def test_nothing_complete_is_an_error(read):
    losses = "run,web_loss\na,\nb,\nc,\n"
    with pytest.raises(TrialsError, match="no row is complete"):
        read(losses=losses, drop_incomplete=True)
    with pytest.raises(TrialsError, match="no run is in both; check that it is the key"):
        read(losses=losses.replace("\na", "\nx").replace("\nb", "\ny").replace("\nc", "\nz"),
             drop_incomplete=True)  # fmt: skip


def test_a_column_that_is_no_number_can_be_ignored(read):
    mixtures = "run,web,code,cluster\na,0.5,0.5,x\nb,0.25,0.75,y\nc,0.9,0.1,z\n"
    with pytest.raises(
        TrialsError, match=r"w.csv: row a: cluster: 'x' is not a number; .*--ignore"
    ):
        read(mixtures)
    assert read(mixtures, ignore=["cluster"]) == read()
    with pytest.raises(TrialsError, match=r"l.csv: --ignore: no column 'cluste'; "):
        read(mixtures, ignore=["cluste"])


def test_the_column_to_join_by_can_be_said_and_then_no_other_counts(read):
    mixtures = "run,index,web,code\na,0,0.5,0.5\nb,1,0.25,0.75\n"
    losses = "run,index,web_loss\nb,0,1.75\na,1,1.5\n"
    with pytest.raises(
        TrialsError, match="row a: index is '1', but '0' .*: mixopt import --key COLUMN"
    ):
        read(mixtures, losses)
    assert read(mixtures, losses, key="run").losses().tolist() == [[1.5], [1.75]]
    with pytest.raises(TrialsError, match=r"w.csv: --key: no column 'runs'; did you mean 'run'?"):
        read(mixtures, losses, key="runs")


def test_a_row_without_a_key_is_named(read):
    with pytest.raises(
        TrialsError, match=r"l.csv: run: is empty in row 3 of the table; fill it in"
    ):
        read(losses=LOSSES.replace("b,1.75", ",1.75"))


def test_a_tolerance_is_named_by_the_option_that_sets_it(read):
    mixtures = MIXTURES.replace("0.9,0.1", "0.9,0.2")
    with pytest.raises(TrialsError, match=r"row c: weights add up to 1.1, .* --tolerance 0.1"):
        read(mixtures)
    assert np.allclose(read(mixtures, tolerance=0.11).weights()[2], [0.9 / 1.1, 0.2 / 1.1])


def test_weights_in_percent_are_divided_by_100(read):
    found = read("run,web,code\na,50,50\nb,25,75\nc,90.4,10\n")
    assert found.weights()[:2].tolist() == [[0.5, 0.5], [0.25, 0.75]]
    assert any("in percent" in note for note in found.notes)


def test_a_row_that_is_there_twice_is_read_once_and_said(read):
    found = read(MIXTURES + "b,0.25,0.75\n")
    assert found == read()
    assert any("1 rows repeat another one" in note for note in found.notes)
    with pytest.raises(TrialsError, match="more than one row for 'b'"):
        read(MIXTURES + "b,0.5,0.5\n")


def test_tables_that_number_their_rows_from_0_and_from_1_are_refused(read):
    mixtures = "index,web,code\n0,0.5,0.5\n1,0.25,0.75\n2,0.9,0.1\n"
    losses = "index,web_loss,code_loss\n1,1.0,2.0\n2,1.5,1.25\n3,1.75,1.0\n"
    with pytest.raises(TrialsError, match="from 1 to 3, and from 0 to 2 in .*: off by one"):
        read(mixtures, losses)
    joined = read(mixtures, losses.replace("3,1.75", "0,1.75"))
    assert joined.losses()[:, 0].tolist() == [1.75, 1.0, 1.5]


# As `mlflow.search_runs().to_csv()`, MLflow's page and W&B's page write them.
MLFLOW = """\
run_id,experiment_id,status,metrics.code_loss,metrics.lr,params.weight/web,params.weight/code
a1,1,FINISHED,1.5,0.1,0.5,0.5
b2,1,FAILED,,,0.4,0.6
c3,1,FINISHED,1.25,0.1,0.9,0.1
"""
MLFLOW_PAGE = """\
Start Time,Run ID,Name,Status,seed,w_web,w_code,loss/code
2026-01-01,a1,run,FINISHED,3,0.5,0.5,1.5
2026-01-01,c3,run,FINISHED,3,0.9,0.1,1.25
"""
WANDB = """\
"Name","ID","State","Tags","weight_web","weight_code","eval/code_loss"
"run","a1","finished","x","0.5","0.5","1.5"
"run","b2","crashed","x","0.4","0.6","9"
"run","c3","finished","","0.9","0.1","1.25"
"""


@pytest.mark.parametrize("export", [MLFLOW, MLFLOW_PAGE, WANDB])
def test_one_table_of_mlflow_or_wandb_has_weights_and_losses(export, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(export)
    found = Trials.from_csv(path)
    assert found.domains == ("web", "code")
    assert found.weights().tolist() == [[0.5, 0.5], [0.9, 0.1]]
    assert found.losses()[:, 0].tolist() == [1.5, 1.25]
    assert found.table["trial"].to_list() == ["a1", "c3"]
    left_out = [note for note in found.notes if "left out 1 of 3 runs" in note]
    assert len(left_out) == (export is not MLFLOW_PAGE)


def test_a_single_table_without_weights_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("run,web,code_loss\na,0.5,1\n")
    with pytest.raises(TrialsError, match="no column of a weight, such as weight/web.*W.csv of"):
        Trials.from_csv(path)
