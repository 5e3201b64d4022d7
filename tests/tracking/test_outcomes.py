"""What MLflow has of a whole run: outcomes to sort by, charts, the decision in words, figures."""

import pytest

from mixopt import load_run, run
from mixopt.fitting import OBJECTIVE
from mixopt.system import host_name

pytest.importorskip("mlflow")

pytestmark = [
    pytest.mark.nightly,  # two whole runs, sent to a real server
    # MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]


@pytest.fixture(scope="module")
def decided(experiment, mlflow_server, tmp_path_factory):
    """Two runs to the end, recorded by a real server: directories, client, experiment."""
    from mlflow import MlflowClient

    mlflow_server.start()
    folder = tmp_path_factory.mktemp("decided")
    text = experiment.replace("{enabled: false}", f"{{uri: '{mlflow_server.uri}'}}")
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    short = ["proxy.tokens=6000", "seed=1"]
    run(folder / "tiny.yaml", folder / "long")
    run(folder / "tiny.yaml", folder / "short", overrides=short)
    client = MlflowClient(tracking_uri=mlflow_server.uri)
    return folder, client, client.get_experiment_by_name("tiny").experiment_id


@pytest.fixture(scope="module")
def parents(decided):
    """The parent runs of the first directory by step."""
    _, client, experiment = decided
    found = client.search_runs([experiment], "tags.`mixopt.step` != ''", max_results=100)
    own = [one for one in found if one.info.run_name.startswith("long/")]
    return {one.data.tags["mixopt.step"]: one for one in own}


def test_experiments_sort_by_outcome(decided):
    _, client, experiment = decided
    only = "tags.`mixopt.step` = 'sweep'"
    for key in ("outcome/validated_gain", "outcome/held_out_rmse"):
        found = client.search_runs([experiment], only, order_by=[f"metrics.`{key}` DESC"])
        values = [one.data.metrics[key] for one in found]
        assert len(values) == 2
        assert values[0] > values[1]


def test_the_sweep_s_run_has_the_outcome_of_the_whole_run(decided, parents):
    found = load_run(decided[0] / "long")
    metrics = parents["sweep"].data.metrics
    report = found.fit.report.filter(predictor=found.fit.name, target=OBJECTIVE)
    assert metrics["outcome/held_out_rmse"] == pytest.approx(report["rmse"][0])
    decision = found.recommendation
    gain = decision.gains.get("natural")
    if gain is not None:
        own = (gain.validated.value, gain.validated.low, gain.validated.high)
        names = ("validated_gain", "validated_gain_low", "validated_gain_high")
        assert [metrics[f"outcome/{name}"] for name in names] == pytest.approx(list(own))
    for name, share in decision.mixture.items():
        assert metrics[f"recommended/{name}"] == pytest.approx(share)


def test_the_sweep_s_run_says_where_it_trained(decided, parents):
    _, client, _ = decided
    sweep = parents["sweep"]
    assert sweep.data.tags["mixopt.executor"] == "local"
    assert sweep.data.tags["mixopt.nodes"] == host_name()
    assert "attempts.jsonl" in {one.path for one in client.list_artifacts(sweep.info.run_id)}


def test_the_experiment_says_which_run_to_open_and_what_to_sort_by(decided):
    _, client, experiment = decided
    note = client.get_experiment(experiment).tags["mlflow.note.content"]
    assert "NAME/sweep" in note
    assert "`objective`" in note


def test_what_is_a_number_is_no_line(decided, parents):
    _, client, _ = decided
    for step, parent in parents.items():
        for key in parent.data.metrics:
            steps = {point.step for point in client.get_metric_history(parent.info.run_id, key)}
            assert key.startswith("trials/") or steps == {0}, (step, key)


def test_trials_sort_by_the_objective(decided, parents):
    _, client, experiment = decided
    found = load_run(decided[0] / "long")
    only = f"tags.`mlflow.parentRunId` = '{parents['sweep'].info.run_id}'"
    best_first = client.search_runs([experiment], only, order_by=["metrics.`objective` ASC"])
    names = [one.info.run_name for one in best_first]
    values_N = found.objective.value(found.trials.losses(found.objective.unit))
    ranked = sorted(zip(values_N, found.trials.table["trial"], strict=True))
    assert names == [name for _, name in ranked]
    assert best_first[0].data.metrics["objective"] == pytest.approx(ranked[0][0])


def test_a_trial_has_a_learning_curve_and_its_weights(decided, parents):
    _, client, experiment = decided
    parent = parents["sweep"].info.run_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    child = children[0]
    history = client.get_metric_history(child.info.run_id, "loss/help")
    assert [point.step for point in history] == [2000 * number for number in range(1, 11)]
    assert history[0].value > history[-1].value
    assert {"weight/code", "weight/prose"} <= set(child.data.params)
    assert child.data.tags["mixopt.status"] == "finished"


def test_the_recommendation_is_a_tag_and_the_terminal_s_text_is_the_description(decided, parents):
    decision = load_run(decided[0] / "long").recommendation
    for parent in parents.values():
        tags = parent.data.tags
        assert tags["mixopt.recommended"] == decision.chosen
        assert tags["mixopt.weights"].startswith(max(decision.mixture, key=decision.mixture.get))
        assert decision.chosen in tags["mlflow.note.content"].splitlines()[1]


def test_versions_and_the_corpus_are_tags_and_the_configuration_parameters(parents):
    for parent in parents.values():
        assert "python 3." in parent.data.tags["mixopt.versions"]
        assert "numpy 2." in parent.data.tags["mixopt.versions"]
        assert len(parent.data.tags["mixopt.corpus_hash"]) > 10
        assert parent.data.params["proxy.eval_tokens"] == "4096"
        assert parent.data.params["objective.target"] == "help"
        assert not [name for name in parent.data.params if name.startswith("tracking")]


def test_report_recommendation_and_figures_are_artifacts(decided, parents):
    _, client, _ = decided
    identity = parents["sweep"].info.run_id
    top = {one.path for one in client.list_artifacts(identity)}
    assert {"report.html", "recommendation.yaml", "config.yaml"} <= top
    figures = {one.path for one in client.list_artifacts(identity, "figures")}
    assert "figures/design.svg" in figures
