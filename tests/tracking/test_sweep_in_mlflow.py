"""What MLflow shows of a sweep: how far it is over time, where it trained, its attempts."""

import json

import pytest
from counted_work import calls
from places import SUPPORT

from mixopt import run
from mixopt.sweeps import ATTEMPTS, METRICS, AttemptRecord
from mixopt.system import host_name

pytest.importorskip("mlflow")

pytestmark = [
    pytest.mark.nightly,  # a sweep, sent to a real server
    # MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]


@pytest.fixture(scope="module")
def swept(experiment, mlflow_server, tmp_path_factory):
    """A sweep in which a worker died, recorded by a real server: its run directory and client."""
    from mlflow import MlflowClient

    mlflow_server.start()
    folder = tmp_path_factory.mktemp("swept")
    head, _, rest = experiment.partition("proxy:")
    proxy = {"log": str(folder / "log"), "size": 2, "fault": "kill", "at": "t0003"}
    more = {"name": "faulty_proxy:Faulty", "tokens": 20000, "options": proxy}
    text = f"{head}proxy: {json.dumps(more)}\nsweep:{rest.partition('sweep:')[2]}"
    text = text.replace("{enabled: false}", f"{{uri: '{mlflow_server.uri}'}}")
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT))
        patch.syspath_prepend(str(SUPPORT))
        run(folder / "tiny.yaml", folder / "run", until="sweep")
    client = MlflowClient(tracking_uri=mlflow_server.uri)
    experiment_id = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment_id], max_results=100)
    parent = next(run for run in runs if run.info.run_name == "run/sweep")
    return folder / "run", client, parent


def test_the_parent_run_has_counts_of_trials_and_hours(swept):
    _, _, parent = swept
    metrics = parent.data.metrics
    assert (metrics["trials/done"], metrics["trials/failed"]) == (12, 0)
    assert metrics["trials/running"] == 0
    assert (metrics["trials/lost"], metrics["trials/retried"]) == (0, 2)
    assert metrics["trials/tokens_per_second"] > 0
    assert metrics["trials/cpu_hours"] > 0
    assert metrics["trials/cpu_hours_to_go"] == 0


def test_each_line_of_the_sweep_is_a_point_over_time(swept):
    path, client, parent = swept
    lines = [json.loads(line) for line in (path / "trials" / METRICS).read_text().splitlines()]
    history = client.get_metric_history(parent.info.run_id, "trials/done")
    assert [point.step for point in history] == [line["step"] for line in lines]
    assert [point.value for point in history] == [line["trials/done"] for line in lines]
    assert len(lines) >= 2


def test_executor_nodes_and_devices_are_tags(swept):
    tags = swept[2].data.tags
    assert (tags["mixopt.executor"], tags["mixopt.devices"]) == ("local", "cpu")
    assert tags["mixopt.nodes"] == host_name()


def test_the_attempts_are_an_artifact(swept, tmp_path):
    path, client, parent = swept
    names = [file.path for file in client.list_artifacts(parent.info.run_id)]
    assert ATTEMPTS in names
    kept = client.download_artifacts(parent.info.run_id, ATTEMPTS, str(tmp_path))
    with open(kept) as stream:
        assert stream.read() == (path / "trials" / ATTEMPTS).read_text()


def test_a_line_of_a_sweep_of_ten_thousand_attempts_takes_few_calls_of_each(tmp_path):
    from mixopt.sweeps.progress import SweepMeter

    shape = {"at": 1.0, "trials": ["a"], "finished": 1, "outcome": "ended", "gpus": 1.0}
    records = [AttemptRecord(node="n", kind="L4", seconds=1.0, **shape) for _ in range(10_000)]
    meter = SweepMeter(tmp_path, 10_000, 1000, {}, lambda done, note: None)
    meter._records = records
    assert calls(meter.note_metrics) < 10 * len(records)
