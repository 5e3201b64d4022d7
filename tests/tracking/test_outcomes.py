"""What MLflow has of a whole run: outcomes to sort by, charts, the decision in words, figures."""

import json

import pytest

from mixopt import load_run, run
from mixopt.fitting import OBJECTIVE
from mixopt.tracking.outcomes import _add_lines, _plain, _weights_line, run_outcome

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
    for key in ("outcome/validated_gain", "outcome/held_out_rmse", "spent/tokens"):
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
    assert metrics["spent/trials_failed"] == 0
    validated = found.validation.trials.table.height
    assert metrics["spent/trials_done"] == found.trials.table.height + validated
    assert metrics["spent/cpu_hours"] > 0
    assert "spent/flops" not in metrics  # an n-gram model's parameters are no weights


def test_charts_of_parent_runs_have_several_points(decided, parents):
    _, client, _ = decided
    for step, keys in {
        "sweep": ("outcome/best_trial", "spent/tokens", "recommended/code", "trials/done"),
        "validate": ("objective/natural", "objective/proposal"),
    }.items():
        for key in keys:
            history = client.get_metric_history(parents[step].info.run_id, key)
            assert len({point.step for point in history}) > 1, key


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


def test_the_recommendation_is_a_tag_and_a_table_in_the_description(decided, parents):
    decision = load_run(decided[0] / "long").recommendation
    for parent in parents.values():
        tags = parent.data.tags
        assert tags["mixopt.recommended"] == decision.chosen
        assert tags["mixopt.weights"] == _weights_line(decision.mixture)
        assert "| domain | natural | recommended |" in tags["mlflow.note.content"]


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
    pictures = [one.path for one in client.list_artifacts(identity, "images")]
    assert any(name.startswith("images/design+step+0") for name in pictures)
    assert parents["sweep"].data.tags["mlflow.loggedImages"] == "True"


def test_an_outcome_that_has_not_changed_is_not_written_again(decided, tmp_path):
    found = load_run(decided[0] / "long")
    file = tmp_path / "tracking_sweep.jsonl"
    _add_lines(file, run_outcome(found))
    before = file.read_bytes()
    _add_lines(file, run_outcome(found))
    assert file.read_bytes() == before


def test_an_outcome_that_has_changed_is_another_point_of_its_step(tmp_path):
    file = tmp_path / "tracking_sweep.jsonl"
    _add_lines(file, [(3, {"outcome/a": 1.0, "outcome/b": 1.0})])
    _add_lines(file, [(3, {"outcome/a": 2.0, "outcome/b": 1.0})])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], line["outcome/a"]) for line in lines] == [(3, 1.0), (3, 2.0)]
    assert "outcome/b" not in lines[1]


def test_names_in_the_description_are_no_markup():
    assert _plain("a|b <script> [x](y)") == r"a\|b \<script\> \[x\]\(y\)"
