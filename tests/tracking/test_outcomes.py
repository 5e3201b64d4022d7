"""What MLflow has of a whole run: outcomes to sort by, charts, the decision in words, figures."""

import sqlite3
from contextlib import closing

import pytest

from mixopt import load_run
from mixopt.fitting import OBJECTIVE
from mixopt.system import host_name

pytest.importorskip("mlflow")

pytestmark = [
    pytest.mark.nightly,  # a run and its trials are sent to a database
    # MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]


@pytest.fixture(scope="module")
def recorded(sent):
    """The run, its client of MLflow, and its parent runs by step."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{sent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], "tags.`mixopt.step` != ''")
    return load_run(sent), client, {one.data.tags["mixopt.step"]: one for one in runs}


def test_a_run_that_was_not_tracked_is_finished_and_says_what_to_sort_by(recorded):
    run, client, _ = recorded
    with closing(sqlite3.connect(run.path / "mlflow.db")) as database:
        states = database.execute("select distinct status from runs").fetchall()
    assert states == [("FINISHED",)]
    note = client.get_experiment_by_name("tiny").tags["mlflow.note.content"]
    assert "NAME/sweep" in note
    assert "`objective`" in note


def test_the_sweep_s_run_has_the_outcome_of_the_whole_run(recorded):
    run, client, parents = recorded
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


def test_trials_sort_by_the_objective_and_have_a_learning_curve(recorded):
    run, client, parents = recorded
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


def test_the_decision_versions_and_configuration_are_tags_and_parameters(recorded):
    run, _, parents = recorded
    decision = run.recommendation
    sweep = parents["sweep"].data.tags
    assert (sweep["mixopt.executor"], sweep["mixopt.nodes"]) == ("local", host_name())
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


def test_report_recommendation_tables_and_figures_are_artifacts(recorded):
    run, _, _ = recorded
    kept = {file.name for file in (run.path / "mlartifacts").rglob("*") if file.is_file()}
    assert {"report.html", "recommendation.yaml", "config.yaml", "attempts.jsonl"} <= kept
    assert {"design.svg", "responses.svg", "trials.parquet"} <= kept
