"""The page on MLflow: its blocks run, and what it names is recorded."""

import re

import pytest
import yaml
from command_line import mixopt
from doc_pages import blocks_of, page_text

pytest.importorskip("mlflow")

pytestmark = [
    pytest.mark.nightly,  # a whole run in MLflow
    # MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

PAGE = page_text("mlflow")


def test_the_page_s_code_runs_in_the_folder_of_a_run(sent, monkeypatch, capsys):
    monkeypatch.chdir(sent)
    names = {}
    for block in blocks_of("mlflow", "python"):
        exec(compile(block, "docs/mlflow.md", "exec"), names)
    assert len(names["best_first"]) == 1
    assert len(names["curve"]) == 10
    assert "web/sweep" in capsys.readouterr().out


def test_what_the_page_names_is_recorded(sent, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(sent)
    client = MlflowClient(tracking_uri="sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], max_results=100)
    known = {name for run in runs for name in run.data.metrics}
    known |= {name for run in runs for name in (*run.data.tags, *run.data.params)}
    groups = "outcome|spent|search|mixopt"
    named = set(re.findall(rf"`((?:{groups})[/.][a-z_]+)`", PAGE))
    # Of other runs than this one.
    absent = {"mixopt.git_commit", "mixopt.reason"}
    assert named - absent - known == set()


def test_the_page_s_configurations_are_ones():
    from mixopt.config import TrackingConfig

    blocks = map(yaml.safe_load, blocks_of("mlflow", "yaml"))
    found = [TrackingConfig.model_validate(block["tracking"]) for block in blocks]
    uris = ["sqlite:////shared/mixtures/mlflow.db", "http://mlflow.example.org:5000"]
    assert [item.uri for item in found] == uris
    assert found[1].experiment == "data-mixtures"


def test_the_page_s_sync_is_one_that_the_command_takes(sent):
    (line,) = re.findall(r"^mixopt (sync .*)$", PAGE, re.MULTILINE)
    words = line.replace("runs/web", str(sent)).split()
    words[words.index("--uri") + 1] = f"sqlite:///{sent}/copy/mlflow.db"
    said = mixopt(*words).out
    assert said.startswith(f"{sent}: sent ")
    assert "the rest is not sent" not in said
