"""The parent run of a whole run in MLflow: sortable outcomes, the decision as text, its files."""

import json
import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from refusals import refuses

from mixopt import load_run
from mixopt.config import TrackingConfig, load_config
from mixopt.errors import RunError
from mixopt.fitting import OBJECTIVE
from mixopt.pipeline import status
from mixopt.run_directory import REPORT, SWEEP, VALIDATE, Run
from mixopt.system import __version__, git_commit, host_name
from mixopt.tracking import Tracker, code_tags, outcomes, sync, tracked
from mixopt.tracking.mlflow_names import mlflow_key
from mixopt.tracking.record import JOURNAL, wanted_runs


@pytest.fixture(scope="module")
def recorded(finished, tmp_path_factory):
    """A run that was not tracked, put on record afterwards; and what it wants of MLflow by step."""
    path = shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "web")
    outcomes._record_again(path)
    return load_run(path), wanted_runs(path)


def ends(interval, name, inner=""):
    """An interval as its three metrics."""
    values = {"": interval.mean, "_low": interval.low, "_high": interval.high}
    return {f"{name}{end}{inner}": value for end, value in values.items()}


def test_the_sweep_s_run_has_the_outcome_of_the_whole_run(recorded):
    run, wanted = recorded
    steps, gain = status(run)["steps"], run.recommendation.gains["natural"]
    (fold,) = run.fit.report.filter(predictor=run.fit.name, target=OBJECTIVE).to_dicts()
    assert wanted["sweep"].metrics == pytest.approx({
        "outcome/best_trial": min(run.objective.value(run.trials.losses(run.objective.unit))),
        "outcome/held_out_rmse": fold["rmse"],
        "outcome/held_out_spearman": fold["spearman"],
        **ends(gain, "outcome/validated_gain"),
        **ends(run.recommendation.predicted_gains["natural"], "outcome/predicted_gain"),
        **{f"recommended/{name}": share for name, share in run.recommendation.mixture.items()},
        "spent/gpu_hours": 0.0,
        "spent/cpu_hours": steps["sweep"]["cpu_hours"] + steps["validate"]["cpu_hours"],
    }, abs=1e-6)  # fmt: skip


def test_the_validation_s_run_has_every_mixture_and_every_gain(recorded):
    run, wanted = recorded
    validation, decision = run.validation, run.recommendation
    expected = {f"objective/{name}": validation.mean(name) for name in validation.mixtures}
    for name, gain in decision.other_losses.items():
        expected[f"loss_gain/{name}"] = gain.mean
    for name, gain in decision.gains.items():
        expected |= ends(gain, "gain", f"/{name}")
    for name, gain in decision.predicted_gains.items():
        expected[f"predicted_gain/{name}"] = gain.mean
    assert len(decision.gains) > 2
    assert wanted["validate"].metrics == pytest.approx(expected)


def test_both_runs_have_the_decision_the_versions_and_the_configuration(recorded):
    run, wanted = recorded
    decision = run.recommendation
    for step, want in wanted.items():
        assert (want.name, want.server, want.experiment) == (f"web/{step}", None, "tiny")
        assert (want.status, want.lines) == ("FINISHED", None)
        assert want.fingerprint == run.log.fingerprint(step)
        assert want.objective == json.loads(json.dumps(run.objective.to_json()))
        assert want.tags["mixopt.recommended"] == decision.chosen
        assert want.tags["mixopt.standing"] == decision.standing
        ranked = sorted(decision.mixture.items(), key=lambda entry: -entry[1])
        assert want.tags["mixopt.weights"].split()[::2] == [name for name, _ in ranked]
        assert decision.chosen in want.tags["mlflow.note.content"].splitlines()[1]
        assert "numpy 2." in want.tags["mixopt.versions"]
        assert want.tags["mixopt.version"] == __version__
        assert (want.tags["mixopt.nodes"], want.tags["mixopt.devices"]) == (host_name(), "cpu")
        assert want.params["sweep.executor"] == "local"
        assert len(want.tags["mixopt.corpus_hash"]) > 10
        names = ("domains", "objective.target", "design.trials", "proxy.tokens")
        assert [want.params[name] for name in names] == ["2", "help", "8", "20000"]
        assert not [name for name in want.params if name.startswith("tracking")]
    assert [item.folder for item in wanted.values()] == ["trials", "validation"]
    assert [item.params["tokens"] for item in wanted.values()] == ["20000", "40000"]
    kept = {"config.yaml", "design.parquet", "trials.parquet", "trials/attempts.jsonl"}
    kept |= {"report.html", "recommendation.yaml", "proposal.yaml", "fit/report.parquet"}
    assert {"figures/design.svg", "figures/responses.svg", *kept} <= set(wanted["sweep"].files)
    assert "validation/attempts.jsonl" in wanted["validate"].files


def test_before_its_validation_a_run_has_what_is_known(recorded, tmp_path):
    path = shutil.copytree(recorded[0].path, tmp_path / "web")
    load_run(path).log.discard("validate")
    run = load_run(path)
    assert outcomes.validation_outcome(run) == {}
    values, natural = outcomes.run_outcome(run), run.proposal.gains["natural"]
    assert {n: v for n, v in values.items() if "gain" in n} == ends(
        natural, "outcome/predicted_gain"
    )
    assert values["recommended/prose"] == pytest.approx(run.proposal.mixture["prose"], abs=1e-6)
    assert outcomes.description_tags(run)["mixopt.recommended"] == "not validated yet"
    run.log.discard("propose")
    assert outcomes.description_tags(run) == {}
    run.log.discard("sweep")
    (path / JOURNAL).write_text('{"step": "of another version"}\n')
    refuses(RunError, "nothing to send: neither its sweep nor its validation is", sync, path)
    refuses(RunError, "has no config.yaml; give one of the runs in it: web", sync, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_validation_tokens_may_differ_and_long_configurations_are_cut(config_path, tmp_path):
    run = Run(tmp_path / "run", load_config(config_path, ["validate.tokens=30000"]))
    params = outcomes.run_params(run, VALIDATE)
    assert (params["tokens"], outcomes.run_params(run, SWEEP)["tokens"]) == (30000, 20000)
    many = ",".join(f"k{n}: {n}" for n in range(500))
    run = Run(tmp_path / "run", load_config(config_path, [f"proxy.options={{{many}}}"]))
    assert len(outcomes.run_params(run, SWEEP)) == 400


def test_what_is_not_known_yet_or_cannot_be_told_ends_no_run(config_path, tmp_path, monkeypatch):
    objective = "objective={mean: {code: 1, help: 1}, scale: spread}"
    run, warnings = Run(tmp_path / "run", load_config(config_path, [objective])), []
    on, off = (
        Tracker(TrackingConfig(enabled=enabled), "toy", run.path, warnings.append, sends=False)
        for enabled in (True, False)
    )
    on.start("sweep", {})
    outcomes._add_outcomes(run, on)
    (wanted,) = wanted_runs(run.path).values()
    assert (wanted.objective, wanted.metrics, wanted.tags) == (None, {}, {})
    monkeypatch.setattr(outcomes, "description_tags", [].index)
    outcomes._add_outcomes(run, off)
    assert warnings == []
    outcomes._add_outcomes(run, on)
    monkeypatch.setattr(Run, "objective", property(lambda run: 1 / 0))
    outcomes._add_outcomes(run, on)
    (warning,) = warnings
    assert warning.startswith("tracking: outcomes are not recorded: ValueError: Run(")


def test_a_report_adds_to_the_steps_that_are_done_and_else_says_nothing(config_path, tmp_path):
    run = Run(tmp_path / "run", load_config(config_path))
    with Tracker(TrackingConfig(), "toy", run.path, sends=False) as tracker:
        with tracked(run, REPORT, tracker):
            pass
        assert wanted_runs(run.path) == {}


NAMED = "http://me:s3cret@127.0.0.1:5000"


@pytest.mark.parametrize(
    ("named", "options", "expected"),
    [
        (None, {}, None),
        (None, {"uri": NAMED}, NAMED),
        (NAMED, {"uri": "sqlite:///all.db"}, "sqlite:///{}/all.db"),
        (NAMED, {"trust": True}, NAMED.replace("me:s3cret", "***")),
        (NAMED, {}, "--uri http://127.0.0.1:5000 with MLFLOW_TRACKING_USERNAME and"),
        ("http://127.0.0.1:9", {}, r"--uri http://127.0.0.1:9 \(or MLFLOW_TRACKING_URI\)"),
    ],
)
def test_a_record_is_sent_where_the_user_says(tmp_path, monkeypatch, named, options, expected):
    """A server that only the directory names is not asked without trust, and no secret is kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    started = []

    def start(path, server):
        started.append(server)
        end = {5.0: None, 30.0: "no answer"}
        return SimpleNamespace(server=str(server), patience=5.0, end=lambda most, say: end[most])

    monkeypatch.setattr(outcomes, "SenderProcess", start)
    with Tracker(TrackingConfig(uri=named), "toy", tmp_path, sends=False) as tracker:
        tracker.start("sweep", {})
    if not options and named:
        with pytest.raises(RunError, match=f"only this directory names .*{expected}") as error:
            sync(tmp_path)
        assert "s3cret" not in str(error.value)
        assert "--trust" in str(error.value)
        assert started == []
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:1")
        assert sync(tmp_path).server == "http://there:1"
        return
    assert sync(tmp_path, **options).trouble == "no answer"
    (server,) = started
    assert (server and server.given) == (expected and expected.format(tmp_path))


def test_what_was_sent_is_said_in_a_line():
    sent = {"runs": 2, "trials": 0, "points": 1200, "files": 3}
    said = "sent 2 runs, 1,200 points, 3 files to mlflow.db"
    assert str(outcomes.SyncResult("mlflow.db", sent, None)) == said
    said = "sent nothing to mlflow.db; the rest is not sent: no answer"
    assert str(outcomes.SyncResult("mlflow.db", {}, "no answer")) == said


def test_code_is_named_by_its_commit_and_whether_files_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "mixopt.git_commit" not in code_tags("f", git_commit())
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    file, plain = tmp_path / os.fsdecode(b"caf\xe9"), ["config", "core.quotepath", "false"]
    file.write_text("one")
    for arguments in (["init", "-q"], plain, ["add", "."], [*author, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], check=True)
    clean = code_tags("f", git_commit())
    assert clean["mixopt.fingerprint"] == "f"
    file.write_text("two")
    changed = code_tags("f", git_commit())
    assert changed["mixopt.git_commit"] == clean["mixopt.git_commit"] + "+"
    assert changed["mlflow.source.git.commit"] == clean["mixopt.git_commit"]


@pytest.mark.nightly
# MLflow's mappers use a loader that SQLAlchemy 2.1 deprecates.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_each_wanted_run_is_in_mlflow_with_sortable_trials_and_curves(sent):
    from mlflow import MlflowClient

    run, client = load_run(sent), MlflowClient(tracking_uri=f"sqlite:///{sent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert "`NAME/sweep` is a whole run" in experiment.tags["mlflow.note.content"]
    found = client.search_runs([experiment.experiment_id])
    assert {item.info.status for item in found} == {"FINISHED"}
    parents = {item.data.tags.get("mixopt.step"): item for item in found}
    for step, wanted in wanted_runs(sent).items():
        data = parents[step].data
        metrics = {n: v for n, v in data.metrics.items() if not n.startswith("trials/")}
        assert metrics == {mlflow_key(name): value for name, value in wanted.metrics.items()}
        assert data.params == {mlflow_key(n): value for n, value in wanted.params.items()}
        assert data.tags.items() >= wanted.tags.items()
        for key in metrics:  # what is a number is no line
            (point,) = client.get_metric_history(parents[step].info.run_id, key)
            assert point.step == 0
    kept = {file.name for file in (sent / "mlartifacts").rglob("*") if file.is_file()}
    assert kept >= {name.rpartition("/")[2] for name in wanted_runs(sent)["sweep"].files}
    only = f"tags.`mlflow.parentRunId` = '{parents['sweep'].info.run_id}'"
    by_objective = {"order_by": ["metrics.`objective` ASC"]}
    best_first = client.search_runs([experiment.experiment_id], only, **by_objective)
    values_N = run.objective.value(run.trials.losses(run.objective.unit))
    ranked = sorted(zip(values_N, run.trials.table["trial"], strict=True))
    assert [item.info.run_name for item in best_first] == [name for _, name in ranked]
    best = best_first[0]
    assert best.data.metrics["objective"] == pytest.approx(ranked[0][0])
    history = client.get_metric_history(best.info.run_id, "loss/help")
    assert (len(history), history[0].value > history[-1].value) == (10, True)
    assert best.data.params.keys() >= {"weight/code", "weight/prose"}
    assert best.data.tags["mixopt.status"] == "finished"
