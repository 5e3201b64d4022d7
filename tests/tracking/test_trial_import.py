"""Runs in MLflow become trials again: our own exactly, others' by their prefixes."""

import shutil

import pytest
from tracked_sweep import by_name, record

from mixopt.errors import ConfigError, RunError, TrialsError
from mixopt.tracking import RunLayout, import_trials
from mixopt.tracking.reading import LoggedRun, tracking_uri
from mixopt.tracking.trial_import import trials_of
from mixopt.trials import Trials

MLFLOW_WARNING = "ignore:The ``noload`` loader strategy is deprecated"


@pytest.mark.filterwarnings(MLFLOW_WARNING)
def test_a_sweep_that_was_tracked_comes_back_exactly(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    written = record(tmp_path)
    found, path = import_trials(str(tmp_path), "toy", tmp_path / "back")
    assert by_name(found) == by_name(written)
    assert Trials.read(path) == found
    assert found.notes == ()


def test_one_sweep_of_several_must_be_chosen():
    sweeps = [foreign(f"s{n}", weights=(), tags={"mixopt.step": "sweep"}) for n in range(2)]
    tags = {"mixopt.trial": "t", "mlflow.parentRunId": "id-s1"}
    child = foreign("t", params={"weight/x": "1"}, metrics={"loss/x": 2.0}, tags=tags)
    message = r"--run: several runs are called 'sweep'; give the id of one: id-s0 \(s0\), id-s1"
    with pytest.raises(ConfigError, match=message):
        trials_of([*sweeps, child])
    assert trials_of([*sweeps, child], run="id-s1").losses().tolist() == [[2.0]]


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(ConfigError, match="no such database"):
        tracking_uri(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(ConfigError, match="no such database"):
        tracking_uri(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").touch()
    assert tracking_uri(str(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri("http://127.0.0.1:1") == "http://127.0.0.1:1"


@pytest.mark.nightly
def test_a_server_that_is_down_is_one_line(tmp_path):
    pytest.importorskip("mlflow")
    with pytest.raises(TrialsError, match=r"http://127.0.0.1:9: MLflow cannot read it: "):
        import_trials("http://127.0.0.1:9", "toy", tmp_path)


def test_a_run_directory_keeps_its_own_trials(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(RunError, match="is the directory of a run; use another --out"):
        import_trials("http://127.0.0.1:9", "toy", tmp_path)


def foreign(name="a", *, weights=(0.5, 0.5), losses=(2.0, 3.0), **fields):
    """A run of another tool: weights among its parameters, losses among its metrics."""
    params = {f"mix.{d}": str(w) for d, w in zip("xy", weights, strict=False)}
    metrics = {f"eval/{t}_loss": v for t, v in zip("xy", losses, strict=False)}
    known = {"id": f"id-{name}", "name": name, "status": "FINISHED", "started": 0, "tags": {}}
    return LoggedRun(**{**known, "params": params, "metrics": metrics, **fields})


FOREIGN = RunLayout("mix.", "eval/")


def test_runs_of_another_tool_are_found_by_prefixes():
    found = trials_of([foreign("a"), foreign("b", weights=(0.25, 0.75))], FOREIGN)
    assert (found.domains, found.targets) == (("x", "y"), ("x", "y"))
    assert found.weights().tolist() == [[0.5, 0.5], [0.25, 0.75]]
    assert found.losses().tolist() == [[2.0, 3.0], [2.0, 3.0]]
    assert found.table["seed"].to_list() == [None, None]


def test_losses_of_another_tool_may_be_in_bits_per_byte():
    layout = RunLayout("mix.", "eval/", unit="bits_per_byte")
    assert trials_of([foreign()], layout).losses("bits_per_byte").tolist() == [[2.0, 3.0]]


def test_weights_may_be_metrics():
    run = foreign(weights=(), metrics={"mix.x": 0.5, "mix.y": 0.5, "eval/x": 1.0})
    assert trials_of([run], FOREIGN).weights().tolist() == [[0.5, 0.5]]


def test_a_domain_that_a_run_does_not_name_has_no_share():
    found = trials_of([foreign("a"), foreign("b", weights=(1.0,))], FOREIGN)
    assert found.weights()[1].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "RUNNING"}, "is RUNNING in MLflow"),
        ({"status": "KILLED"}, "is KILLED in MLflow"),
        ({"losses": (2.0,)}, "has no loss on 'y'"),
        ({"losses": (2.0, float("nan"))}, "its loss on 'y' is nan"),
    ],
)
def test_a_run_that_is_not_complete_is_a_failed_trial_with_its_reason(fields, reason):
    found = trials_of([foreign("a"), foreign("b", **fields)], FOREIGN)
    row = found.table.row(1, named=True)
    assert (row["status"], row["reason"], row["loss/x"]) == ("failed", reason, None)
    assert len(found.finished) == 1


def test_runs_without_weights_are_named():
    found = trials_of([foreign("a"), foreign("parent", weights=())], FOREIGN)
    assert found.notes == ("1 runs have no weights and are no trials: 'parent'",)
    with pytest.raises(TrialsError, match="no run has a parameter or metric that starts with 'w'"):
        trials_of([foreign("a")], RunLayout("w", "eval/"))


def test_a_loss_that_few_runs_have_is_left_out_and_named():
    odd = foreign("c", metrics={"eval/x_loss": 1.0, "eval/y_loss": 2.0, "eval/extra_loss": 3.0})
    found = trials_of([foreign("a"), foreign("b"), odd], FOREIGN)
    assert found.targets == ("x", "y")
    assert found.notes == ("left out 'extra', which few runs have",)


def test_one_name_for_two_finished_runs_is_an_error_that_names_both():
    runs = [foreign("a"), foreign("a", id="other")]
    with pytest.raises(TrialsError, match=r"2 finished runs are called 'a' \(id-a, other\)"):
        trials_of(runs, FOREIGN)
    by_id = RunLayout("mix.", "eval/", by_id=True)
    assert trials_of(runs, by_id).table["trial"].to_list() == ["id-a", "other"]


def test_a_run_that_was_trained_again_counts_once():
    runs = [foreign("a", status="FAILED"), foreign("a", id="again")]
    found = trials_of(runs, FOREIGN)
    assert found.table["status"].to_list() == ["finished"]
    assert found.notes == ("2 runs are called 'a'; the finished one is taken",)


def test_weights_that_are_no_mixture_are_named_by_run():
    with pytest.raises(TrialsError, match=r"run 'a' \(id-a\): weights add up to 0.75, not 1"):
        trials_of([foreign("a", weights=(0.5, 0.25))], FOREIGN)
    with pytest.raises(TrialsError, match=r"run 'a' \(id-a\): mix.x is 'half', not a number"):
        trials_of([foreign("a", weights=("half", 0.5))], FOREIGN)


def test_children_of_a_parent_can_be_chosen():
    inside = {"mlflow.parentRunId": "id-p"}
    runs = [foreign("p", weights=()), foreign("a", tags=inside), foreign("b")]
    assert trials_of(runs, FOREIGN, run="p").table["trial"].to_list() == ["a"]
    with pytest.raises(ConfigError, match="--run: no run is called 'q'; give the id of one: id-p"):
        trials_of(runs, FOREIGN, run="q")


def test_an_empty_prefix_is_refused():
    with pytest.raises(ConfigError, match="--weight-prefix: must not be empty"):
        RunLayout("")


def test_of_runs_that_failed_under_one_name_the_last_is_taken():
    tries = [foreign("a", id=f"id-{n}", status="FAILED", metrics={"tokens": n}) for n in range(3)]
    found = trials_of([foreign("b"), *tries], FOREIGN)
    assert found.table.filter(trial="a")["tokens"].to_list() == [2]
    assert found.notes == ("3 runs are called 'a'; the last one is taken",)


def test_names_of_our_own_losses_are_kept_whole():
    tags = {"mixopt.trial": "t", "mlflow.parentRunId": "id-s"}
    metrics = {"loss/x_loss": 2.0, "loss/y_loss": 3.0}
    runs = [
        foreign("s", weights=(), losses=(), tags={"mixopt.step": "sweep"}),
        foreign("t", params={"weight/x": "1"}, metrics=metrics, tags=tags),
    ]
    assert trials_of(runs).targets == ("x_loss", "y_loss")
    assert trials_of([foreign(metrics={"eval/x_loss": 2.0})], FOREIGN).targets == ("x",)
