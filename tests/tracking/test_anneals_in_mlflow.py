"""What a real server has of microanneals."""

import pytest
from made_anneals import SOURCES, made_anneals

pytest.importorskip("mlflow")

pytestmark = [
    pytest.mark.nightly,  # a sweep, sent to a real server
    # MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, mlflow_server):
    """A run of microanneals, and its parent run on the server."""
    from mlflow import MlflowClient

    mlflow_server.start()
    tracking = {"uri": mlflow_server.uri, "experiment": "anneals"}
    run = made_anneals(tmp_path_factory.mktemp("anneals"), changes={"tracking": tracking})
    client = MlflowClient(tracking_uri=mlflow_server.uri)
    experiment = client.get_experiment_by_name("anneals").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`mixopt.step` = 'sweep'")
    return run, parent.data


def test_metrics_are_each_source_s_effect(recorded):
    run, data = recorded
    for source in SOURCES:
        effect = run.anneals.effect(source)
        assert data.metrics[f"anneal/{source}"] == pytest.approx(effect.mean)
        assert data.metrics[f"anneal_high/{source}"] == pytest.approx(effect.high)


def test_parameters_say_what_was_compared(recorded):
    params = recorded[1].params
    assert params["design.method"] == "anneals"
    assert params["design.anneals.share"] == "0.5"
    assert SOURCES[0] in params["design.anneals.sources"]
