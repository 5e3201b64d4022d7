"""Tables as others write them: read as they are, or refused in one line that says what mends it."""

import polars as pl
import pytest
from hypothesis import given, strategies as st
from refusals import refuses

from mixopt.errors import ConfigError, TrialsError
from mixopt.trials import Trials
from mixopt.trials.cell_table import CellTable

MIXTURES = "run,web,code\na,0.5,0.5\nb,0.25,0.75\nc,0.9,0.1\n"
LOSSES = "run,web_loss,code_loss\nc,1.0,2.0\na,1.5,1.25\nb,1.75,1.0\n"
REGMIX_MIXTURES = """index,train_the_pile_arxiv,train_the_pile_pile_cc
1,0.25,0.751
2,0.5,0.5
3,0.748,0.25
"""
REGMIX_LOSSES = """index,metric/the_pile_arxiv_val_loss,metric/the_pile_github_val_loss
3,4.3,5.3
1,4.1,5.1
2,4.2,5.2
"""
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


def test_regmix_tables_are_joined_by_index_and_get_plain_names(read):
    trials = read(REGMIX_MIXTURES, REGMIX_LOSSES)
    assert (trials.domains, trials.targets) == (("arxiv", "pile_cc"), ("arxiv", "github"))
    assert trials.table["trial"].to_list() == ["1", "2", "3"]
    assert trials.losses()[:, 0].tolist() == [4.1, 4.2, 4.3]
    assert trials.weights()[0, 0] == 0.25 / 1.001
    assert trials.notes[0].endswith("2 of 3 rows were rescaled to add up to 1 (0.998 to 1.001)")
    assert read(REGMIX_MIXTURES, REGMIX_LOSSES.replace("metric/", "valid_")) == trials


def test_an_unknown_unit_is_refused_by_a_table_and_by_a_fit(read):
    for call in (read, read().fit):
        refuses(ConfigError, "unit bits: unknown; known: bits_per_byte, nats_", call, unit="bits")


def test_the_tables_of_olmix_are_read_as_they_are(read):
    found = read(OLMIX_RATIOS, OLMIX_METRICS, unit="bits_per_byte")
    assert found.domains == ("s2pdf:science_tech", "existing")
    assert found.targets == ("arc_easy:rc::olmes", "mt_mbpp_v2fix:bash")
    assert found.table["trial"].to_list() == ["hi7doihy", "2e10"]
    assert found.losses("bits_per_byte")[1].tolist() == [1.428111658206209, 3.414946051347682]
    assert found.notes == ()
    refuses(TrialsError, "in nats_per_token; set objective.unit: bits_per_byte", found.losses)


def test_parquet_gives_what_csv_gives(read, tmp_path):
    paths = tmp_path / "w.PQ", tmp_path / "l.PQ"
    for path, text in zip(paths, (MIXTURES, LOSSES), strict=True):
        pl.read_csv(text.encode()).write_parquet(path)
    assert Trials.from_csv(*paths) == read()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_of_parquet_are_read_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("numbers") / "t.parquet"
    pl.DataFrame({"run": [str(n) for n in range(len(values))], "x": values}).write_parquet(path)
    assert CellTable.read(path, []).numbers(["x"])[:, 0].tolist() == values


OVER = MIXTURES.replace("0.9,0.1", "0.9,0.2")
TWICE = ("run,index,web,code\na,0,0.5,0.5\nb,1,0.25,0.75\n", "run,index,web_loss\nb,0,2\na,1,1\n")


@pytest.mark.parametrize(
    ("mixtures", "losses", "message"),
    [
        (MIXTURES, LOSSES.replace("a,1.5", "a,NA"), "row a: web_loss: is NA; fill it in, or leave"),
        (MIXTURES, LOSSES.replace("a,1.5", "a,x"), "row a: web_loss: 'x' is not a number; .*--ign"),
        (MIXTURES, LOSSES.replace("a,1.5", "a,1e200"), "its loss on 'web' is 1e[+]200"),
        (OVER, LOSSES, "row c: weights add up to 1.1, .*ance 0.1"),
        (MIXTURES.replace("b,0.25,0.75", "b,25,75"), LOSSES, "row b: weights add up to 100"),
        (MIXTURES.replace("b,0.25,", "b,"), LOSSES, "w.csv:3: 2 cells for 3 columns"),
        (MIXTURES, "run,x\n", "l.csv: expected a header and at least one row"),
        (MIXTURES, "run\na\nb\nc\n", "l.csv: no column besides run"),
        (MIXTURES, "run,x,x\na,1,1\n", "l.csv: column 'x' appears twice"),
        (MIXTURES, LOSSES.replace("run", "step"), "no column of both to join by .*trial, run, run"),
        (MIXTURES, LOSSES.replace("b,1.75", ",1.75"), "l.csv: run: is empty in row 3 of the table"),
        (MIXTURES, LOSSES + "a,1.0,1.0\n", "l.csv: run: more than one row for 'a'; keep one of"),
        (*TWICE, "row a: index is '1', but '0' .*: mixopt import --key COLUMN"),
        ("run,a,parameters\na,1,1e308\n", "run,x\na,1\n", "row a: parameters: is .*; need a numb"),
    ],
)
def test_what_is_wrong_is_one_line_with_what_to_do(read, mixtures, losses, message):
    refuses(TrialsError, message, read, mixtures, losses)


def test_rows_that_are_not_whole_are_left_out_if_asked_and_said(read):
    for cell in ("inf", "-nan"):
        found = read(losses=LOSSES.replace("a,1.5", f"a,{cell}"), drop_incomplete=True)
        assert found.table["trial"].to_list() == ["b", "c"]
        assert found.notes[0].endswith("l.csv: left out 1 of 3 rows that lack a number: 'a'")
    found = read(MIXTURES + "d,0.5,0.5\n", LOSSES + "e,1.0,1.0\n", drop_incomplete=True)
    assert found == read()
    assert [note.split("left out ")[1].split(",")[0] for note in found.notes] == ["'d'", "'e'"]
    empty = "run,web_loss,none_loss\na,1.5,\nb,1.75,\nc,1.0,\n"
    assert read(losses=empty, drop_incomplete=True).targets == ("web",)
    with pytest.raises(TrialsError, match="no row is complete"):
        read(losses="run,web_loss\na,\nb,\nc,\n", drop_incomplete=True)
    with pytest.raises(TrialsError, match="no run is in both; check that it is the key"):
        read(losses="run,web_loss\nx,1\n", drop_incomplete=True)


def test_a_column_can_be_ignored_and_the_key_be_stated(read):
    mixtures = "run,web,code,cluster\na,0.5,0.5,x\nb,0.25,0.75,y\nc,0.9,0.1,z\n"
    assert read(mixtures, ignore=["cluster"]) == read()
    with pytest.raises(TrialsError, match=r"l.csv: --ignore: no column 'cluste'; "):
        read(mixtures, ignore=["cluste"])
    assert read(*TWICE, key="run").losses().tolist() == [[1], [2]]
    with pytest.raises(TrialsError, match=r"w.csv: --key: no column 'runs'; did you mean 'run'?"):
        read(*TWICE, key="runs")


def test_weights_in_percent_rows_that_are_there_twice_and_a_constant_loss_are_read_and_said(read):
    found = read("run,web,code\na,50,50\nb,25,75\nc,90.4,10\n")
    assert found.weights()[:2].tolist() == [[0.5, 0.5], [0.25, 0.75]]
    assert any("in percent" in note for note in found.notes)
    for losses in (
        "run,x\na,1.0\nb,0.995\nc,1.005\n",
        "run,x,y\na,0.4,0.6\nb,0.5,0.5\nc,0.3,0.7\n",
    ):
        assert len(read("run,web,code\na,50,50\nb,25,75\nc,90,10\n", losses)) == 3
    renamed = read(MIXTURES + "b,0.25,0.75\n")
    assert renamed == read()
    assert any("repeat another one, cell by cell, read once: 1" in note for note in renamed.notes)
    assert read(OVER, tolerance=0.11).weights()[2] == pytest.approx([0.9 / 1.1, 0.2 / 1.1])
    (note,) = read(losses="run,x\na,2.0\nb,2.0\nc,2.0\n").notes
    assert note.endswith("the same loss in every row: 'x'; no mixture is better on it")


SCHEDULED = (
    "run,parameters,tokens,schedule,web,code\n"
    "a,100,500,{},0.5,0.5\n"
    "b,100,1000,1,0.5,0.5\n"
    "c,100,2000,1,0.5,0.5\n"
    "d,100,1000,1,0.25,0.75\n"
)
AT_END = "run,web\na,4\nb,3\nc,2\nd,3.5\n"


def test_rows_before_the_end_of_their_schedule_are_left_out_and_said(read):
    found = read(SCHEDULED.format("0.5"), AT_END)
    assert found.table["trial"].to_list() == ["b", "c", "d"]
    assert found.domains == ("web", "code")
    assert "left out 1 of 4 rows before the end of their schedule: 'a'" in found.notes[0]
    assert read(SCHEDULED.format("1"), AT_END).table["seed"].to_list() == [0, 1, 2, 0]
    with pytest.raises(TrialsError, match="row a: schedule: is 1.5; need the share"):
        read(SCHEDULED.format("1.5"), AT_END)
    with pytest.raises(TrialsError, match="schedule: no row is at 1.*give the last row of each"):
        read(SCHEDULED.format("0.5").replace(",1,0", ",0.5,0"), AT_END)


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
"Name","ID","State","Tags","data.weights.web","data.weights.code","eval/code_loss"
"run","a1","finished","x","0.5","0.5","1.5"
"run","b2","crashed","x","0.4","0.6","9"
"run","c3","finished","","0.9","0.1","1.25"
"""


PLAIN = "run_id,parameters,weight_web,weight_code,code_loss\na1,7,0.5,0.5,1.5\nc3,7,0.9,0.1,1.25\n"


@pytest.mark.parametrize("export", [MLFLOW, MLFLOW_PAGE, WANDB, PLAIN])
def test_one_table_of_mlflow_or_wandb_has_weights_and_losses(export, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(export)
    found = Trials.from_csv(path)
    assert found.domains == ("web", "code")
    assert found.weights().tolist() == [[0.5, 0.5], [0.9, 0.1]]
    assert found.losses()[:, 0].tolist() == [1.5, 1.25]
    assert found.table["trial"].to_list() == ["a1", "c3"]
    assert ("left out 1 of 3 runs" in str(found.notes)) == (export in (MLFLOW, WANDB))
    assert found.table["parameters"].to_list() == [7 if export is PLAIN else None] * 2


def test_a_single_table_without_names_is_numbered_and_without_weights_or_a_run_refused(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(WANDB.replace('"c3"', '""'))
    assert Trials.from_csv(path).table["trial"].to_list() == ["0", "1"]
    path.write_text("run,web,code_loss\na,0.5,1\n")
    with pytest.raises(TrialsError, match="no column of a weight, such as weight/web.*W.csv of"):
        Trials.from_csv(path)
    path.write_text("Name,State,w_web,w_code,code_loss\na,crashed,0.5,0.5,2\nb,running,1,0,3\n")
    refuses(TrialsError, r"State: no run has finished \(found 'crashed'\)", Trials.from_csv, path)


def test_questions_of_a_metric_are_kept_in_a_table_of_trials_and_a_row_without_weights_is_named(
    read, tmp_path
):
    found = read(losses="run,qa,items/qa\na,0.5,20\nb,0.25,20\nc,0.9,20\n")
    found.write(tmp_path / "trials.parquet")
    assert Trials.read(tmp_path / "trials.parquet").items == found.items == {"qa": 20}
    mixtures = "run,web,code\na,0,0\nb,0.25,0.75\nc,0.9,0.1\n"
    with pytest.raises(TrialsError, match="row a: all weights are 0; at least one must be above 0"):
        read(mixtures, tolerance=1.0)
