"""What MLflow has of a whole run: outcomes to sort by, charts, the decision in words, figures."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from mixopt import load_run
from mixopt.fitting import OBJECTIVE
from mixopt.tracking import sync

pytest.importorskip("mlflow")

pytestmark = [
    pytest.mark.nightly,  # a run and its trials are sent to a database
    # MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]


@pytest.fixture(scope="module")
def sent(finished, empty_database, tmp_path_factory):
    """A run that was not tracked, sent afterwards: the run, its client, its parent runs by step."""
    from mlflow import MlflowClient

    path = shutil.copytree(finished, tmp_path_factory.mktemp("sent") / "web")
    shutil.copy(empty_database, path / "mlflow.db")
    found, run = sync(path), load_run(path)
    trials = len(run.trials) + len(list((path / "validation").glob("*-s*.json")))
    assert (found.trouble, found.sent["trials"], found.sent["runs"]) == (None, trials, 2)
    client = MlflowClient(tracking_uri=f"sqlite:///{path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    note = experiment.tags["mlflow.note.content"]
    assert "NAME/sweep" in note
    assert "`objective`" in note
    runs = client.search_runs([experiment.experiment_id], "tags.`mixopt.step` != ''")
    return run, client, {one.data.tags["mixopt.step"]: one for one in runs}


def test_a_run_that_was_not_tracked_is_finished_in_mlflow_with_its_trials(sent):
    run, _, _ = sent
    with closing(sqlite3.connect(run.path / "mlflow.db")) as database:
        states = database.execute("select distinct status from runs").fetchall()
    assert states == [("FINISHED",)]


def test_the_sweep_s_run_has_the_outcome_of_the_whole_run(sent):
    run, client, parents = sent
    metrics = parents["sweep"].data.metrics
    report = run.fit.report.filter(predictor=run.fit.name, target=OBJECTIVE)
    assert metrics["outcome/held_out_rmse"] == pytest.approx(report["rmse"][0])
    decision = run.recommendation
    gain = decision.gains["natural"].validated
    names = ("validated_gain", "validated_gain_low", "validated_gain_high")
    own = [metrics[f"outcome/{name}"] for name in names]
    assert own == pytest.approx([gain.value, gain.low, gain.high])
    for name, share in decision.mixture.items():
        assert metrics[f"recommended/{name}"] == pytest.approx(share)
    for parent in parents.values():  # what is a number is no line
        for key in parent.data.metrics:
            steps = {point.step for point in client.get_metric_history(parent.info.run_id, key)}
            assert key.startswith("trials/") or steps == {0}, key


def test_trials_sort_by_the_objective_and_have_a_learning_curve(sent):
    run, client, parents = sent
    only = f"tags.`mlflow.parentRunId` = '{parents['sweep'].info.run_id}'"
    experiment = parents["sweep"].info.experiment_id
    best_first = client.search_runs([experiment], only, order_by=["metrics.`objective` ASC"])
    values_N = run.objective.value(run.trials.losses(run.objective.unit))
    ranked = sorted(zip(values_N, run.trials.table["trial"], strict=True))
    assert [one.info.run_name for one in best_first] == [name for _, name in ranked]
    best = best_first[0]
    assert best.data.metrics["objective"] == pytest.approx(ranked[0][0])
    history = client.get_metric_history(best.info.run_id, "loss/help")
    assert len(history) == 10
    assert history[0].value > history[-1].value
    assert {"weight/code", "weight/prose"} <= set(best.data.params)
    assert best.data.tags["mixopt.status"] == "finished"


def test_the_decision_versions_and_configuration_are_tags_and_parameters(sent):
    run, _, parents = sent
    decision = run.recommendation
    for parent in parents.values():
        tags, params = parent.data.tags, parent.data.params
        assert tags["mixopt.recommended"] == decision.chosen
        assert tags["mixopt.weights"].startswith(max(decision.mixture, key=decision.mixture.get))
        assert decision.chosen in tags["mlflow.note.content"].splitlines()[1]
        assert "numpy 2." in tags["mixopt.versions"]
        assert len(tags["mixopt.corpus_hash"]) > 10
        assert params["objective.target"] == "help"
        assert params["design.trials"] == "8"
        assert not [name for name in params if name.startswith("tracking")]


def test_report_recommendation_tables_and_figures_are_artifacts(sent):
    run, _, _ = sent
    kept = {file.name for file in (run.path / "mlartifacts").rglob("*") if file.is_file()}
    assert {"report.html", "recommendation.yaml", "config.yaml", "attempts.jsonl"} <= kept
    assert {"design.svg", "responses.svg", "trials.parquet"} <= kept
