"""Every command on one finished run: exit code and what it says."""

from __future__ import annotations

import json

import pytest
import yaml
from command_line import mixopt

from mixopt import Proposal, load_run
from mixopt.run_directory import STEPS


def answered(*arguments):
    """What a command prints that succeeds."""
    ended = mixopt(*arguments)
    assert ended.code == 0, ended.error
    return ended.out


def parsed(*arguments):
    """The JSON that a command prints that succeeds."""
    return json.loads(answered(*arguments, "--json"))


@pytest.fixture(scope="module")
def limits(tmp_path_factory):
    """Files of an inventory, constraints and an objective."""
    folder = tmp_path_factory.mktemp("limits")
    contents = {
        "inventory": {"code": "2e6", "prose": "1e6"},
        "constraints": {"max_epochs": 4, "guardrails": "natural"},
        "objective": {
            "families": {"text": {"weight": 2, "mean": {"*p*": 1}}, "code": {"mean": {"code": 1}}}
        },
        "own": {"weights": {"code": 0.3, "prose": 0.7}},
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def test_a_step_that_is_done_is_left_as_it_is_by_file_and_by_directory(run):
    assert answered("run", run, "--until", "fit").startswith("all steps are done: ")
    config = run.parent / "tiny.yaml"
    assert parsed("run", config, "--out", run)["weights"].keys() == {"code", "prose"}
    for step in STEPS:
        last = ("run", config, "--out", run, "--until", step.name)
        said = parsed(*last)
        if step.name != "report":
            assert (said["step"], said["next"]) == (step.name, None)
            assert answered(*last).startswith("all steps are done: ")


@pytest.mark.parametrize("asked", ["", "--target code", "--risk std=1", "--tokens 1e6"])
def test_propose_from_the_fit(run, tmp_path, asked):
    found = parsed("propose", run, *asked.split(), "--out", tmp_path / "found.yaml")
    assert sum(found["weights"].values()) == pytest.approx(1.0)
    assert Proposal.from_file(tmp_path / "found.yaml").to_json() == found


def test_propose_with_files_and_no_json(run, limits):
    files = ("--inventory", limits / "inventory.yaml", "--tokens", "1e6")
    said = answered("propose", run, *files, "--objective", limits / "objective.yaml")
    assert "the mean of 2 families: 0.667 text (2 losses) and 0.333 code (1 loss)" in said
    assert (run / "proposals" / "objective.yaml").exists()


def test_propose_within_guardrails_of_one_word(run, limits, tmp_path):
    files = ("--inventory", limits / "inventory.yaml", "--tokens", "1e6")
    files += ("--constraints", limits / "constraints.yaml", "--out", tmp_path / "found.yaml")
    ended = mixopt("propose", run, *files, "--json")
    if ended.code:  # which mixtures keep them is the fit's answer
        assert "no mixture was found that satisfies constraints.guardrails" in ended.error
        assert "allow targets: {" in ended.error
    else:
        assert max(json.loads(ended.out)["epochs"].values()) <= 4 + 1e-6


def test_propose_a_front(run, tmp_path):
    asked = ("--pareto", "code", "--pareto", "help", "--points", 3)
    found = parsed("propose", run, *asked, "--out", tmp_path / "front")
    assert found["targets"] == ["code", "help"]
    assert len(list((tmp_path / "front").glob("point-*.yaml"))) == len(found["points"])
    again = answered("propose", run, *asked, "--out", tmp_path / "again")
    assert "Pareto front of code and help" in again


def test_predict_a_mixture(run, limits):
    files = ("--inventory", limits / "inventory.yaml", "--tokens", "6e6")
    files += ("--constraints", limits / "constraints.yaml")
    found = parsed("predict", run, "--weights", limits / "own.yaml", *files)
    assert found["weights"] == {"code": 0.3, "prose": 0.7}
    assert found["epochs"] == {"code": 0.9, "prose": 4.2}
    assert any("needs 4.2 epochs of its 1M tokens" in line for line in found["broken"])
    said = answered("predict", run, "--weights", "prose=.7,code=.3", "--target", "help")
    assert "Mixture for help" in said
    assert "best trial (" in said
    assert "predicted: " in said


def test_readiness(run):
    losses = parsed("status", run, "--readiness")["losses"]
    assert [one["name"] for one in losses] == ["code", "prose", "help"]
    assert "How well the trials tell mixtures apart" in answered("status", run, "--readiness")


def test_evaluate_on_the_validated_runs(run):
    found = parsed("fit", run, "--test", run / "validation.parquet")
    assert found["targets"].keys() >= {"code", "prose", "help"}
    assert "runs that it has not seen" in answered("fit", run, "--test", run / "validation.parquet")


def test_fit_of_the_runs_own_table(run, tmp_path):
    said = answered("fit", run / "trials.parquet", "--target", "*e*", "--out", tmp_path / "fit")
    assert said.startswith(("fit: auto: ", "fit: linear: "))
    assert f"next: mixopt propose {tmp_path / 'fit'}" in said
    assert parsed("verify", tmp_path / "fit")["parts"][0]["state"] == "whole"
    (tmp_path / "fit" / "fit" / "report.parquet").write_bytes(b"")
    ended = mixopt("verify", tmp_path / "fit", "--json")
    (part,) = json.loads(ended.out)["parts"]
    assert (ended.code, part["state"]) == (1, "damaged")
    assert list(part["faults"]) == [f"{tmp_path}/fit/fit/report.parquet"]
    assert part["fix"] == "mixopt fit W.csv L.csv --out DIR"


def test_status_and_verify_of_a_run_and_of_its_folder(run):
    headline = load_run(run).recommendation.headline
    assert answered("status", run).splitlines()[0] == headline
    sweep = parsed("status", run)["steps"]["sweep"]
    counts = [sweep[name] for name in ("state", "trials", "ended", "finished", "failed")]
    assert counts == ["done", 12, 12, 12, 0]
    assert all(part["state"] == "whole" for part in parsed("verify", run)["parts"])
    (entry,) = parsed("status", run.parent)["runs"]
    assert [entry[name] for name in ("run", "state", "answer")] == ["run", "done", headline]
    assert "Runs in" in answered("status", run.parent)


def test_the_page_is_written_again(run):
    (run / "report.html").write_text("")
    assert answered("report", run) == f"report: {run / 'report.html'}\n"
    assert "<html" in (run / "report.html").read_text()


def test_predict_says_what_a_job_would_draw(run):
    found = parsed("predict", run, "--tokens", "1e5", "--batch", "8x64")
    assert found["weights"] == dict(load_run(run).recommendation.mixture)
    draws = found["draws"]
    drawn = {one["domain"]: one["tokens"] / draws["tokens"] for one in draws["domains"]}
    assert drawn == pytest.approx(found["weights"], abs=8 / 195)
    own = ("--tokens", "1e5", "--batch", "8x64", "--weights", "prose=.7,code=.3")
    assert "Share of the tokens by stage" in answered("predict", run, *own)


def test_a_schedule_of_a_run_is_predicted_with_what_the_run_knows(run, tmp_path):
    out = tmp_path / "schedule.yaml"
    asked = ("export", run, "--to", "schedule", "--tokens", 1e5, "--batch", "8x64", "--out", out)
    said = answered(*asked, "--stages", "stable:100%").splitlines()
    assert said == [f"{out}: 99,840 tokens in 195 steps", f"next: mixopt predict {out}"]
    assert [parsed(*asked)[name] for name in ("file", "batch")] == [str(out), 8]
    found = parsed("predict", out)
    assert {one["domain"] for one in found["domains"]} == {"code", "prose"}
    assert all(one["inventory"] > 0 for one in found["domains"])


def test_no_command_has_more_than_twelve_options_or_trusts_unasked():
    from typer.main import get_command

    from mixopt.cli.main import app

    commands = get_command(app).commands
    assert list(commands) == [
        *("init", "check", "run", "status", "stop", "report", "predict", "propose", "fit"),
        *("import", "export", "pretrain", "experts", "verify", "sync"),
    ]
    for name, one in commands.items():
        options = {o for p in one.params for o in p.opts if o.startswith("--")}
        assert "--json" in options, name
        assert len(options) <= 12, name
        assert not any(p.default for p in one.params if p.name in ("trust", "as_json")), name
    (points,) = (p for p in commands["propose"].params if p.name == "points")
    assert points.default == 9
