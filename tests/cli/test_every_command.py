"""Every command on one finished run: exit code, what it says, and how it reads its options."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import mixopt
from refusals import refuses

from mixopt import Mixture, Proposal, __version__, load_run, predict
from mixopt.cli.mixture_commands import read_mixture, read_size
from mixopt.cli.options import directory_of, print_json, say, show
from mixopt.config import ConstraintsConfig
from mixopt.errors import MixoptError


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A copy of the run, with its configuration beside it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(finished.parent / "tiny.yaml", folder / "tiny.yaml")
    return shutil.copytree(finished, folder / "run")


def answered(*arguments):
    """Run a command that must succeed; return what it prints."""
    ended = mixopt(*arguments)
    assert ended.code == 0, ended.error
    return ended.out


def parsed(*arguments):
    """Run a command that must succeed; return the JSON that it prints."""
    return json.loads(answered(*arguments, "--json"))


@pytest.fixture(scope="module")
def limits(tmp_path_factory):
    """Files of an inventory, constraints and an objective."""
    folder = tmp_path_factory.mktemp("limits")
    contents = {
        "inventory": "{code: 2e6, prose: 1e6}",
        "constraints": "{max_epochs: 4, guardrails: natural}",
        "objective": "families: {text: {weight: 2, mean: {'*p*': 1}}, code: {mean: {code: 1}}}",
        "own": "weights: {code: 0.3, prose: 0.7}",
    }
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(content)
    return folder


def test_a_step_that_is_done_is_left_as_it_is_by_file_and_by_directory(run):
    assert answered("run", run, "--until", "fit").startswith("all steps are done: ")
    config = run.parent / "tiny.yaml"
    assert parsed("run", config, "--out", run)["weights"].keys() == {"code", "prose"}
    fields = {
        "prepare": ["corpus", "tokenizer", "tokens", "vocab_size"],
        "design": ["trials", "roles"],
        "sweep": ["trials", "table"],
        "fit": ["regressor", "summary", "readiness"],
        "propose": list(load_run(run).proposal.to_json()),
        "validate": ["recommendation", "validation"],
    }
    for name, known in fields.items():
        last = ("run", config, "--out", run, "--until", name)
        said = parsed(*last)
        assert (said["step"], said["next"], list(said["result"])) == (name, None, known)
        assert answered(*last).startswith("all steps are done: ")


@pytest.mark.parametrize("asked", ["", "--target code", "--tokens 1e6"])
def test_propose_from_the_fit(run, tmp_path, asked):
    found = parsed("propose", run, *asked.split(), "--out", tmp_path / "found.yaml")
    assert sum(found["weights"].values()) == pytest.approx(1.0)
    assert Proposal.from_file(tmp_path / "found.yaml").to_json() == found


def test_propose_with_files_and_within_guardrails_of_one_word(run, limits, tmp_path):
    files = ("--inventory", limits / "inventory.yaml", "--tokens", "1e6")
    said = answered("propose", run, *files, "--objective", limits / "objective.yaml")
    assert "the mean of 2 families: 0.667 text (2 losses) and 0.333 code (1 loss)" in said
    assert (run / "proposals" / "objective.yaml").exists()
    files += ("--constraints", limits / "constraints.yaml", "--out", tmp_path / "found.yaml")
    ended = mixopt("propose", run, *files, "--json")
    if ended.code:  # which mixtures keep them is the fit's answer
        assert "no mixture was found that satisfies constraints.guardrails" in ended.error
        assert "allow targets: {" in ended.error
    else:
        assert max(json.loads(ended.out)["epochs"].values()) <= 4 + 1e-6


def test_other_questions_keep_the_constraints_of_the_run_and_overwrite_no_answer(run):
    for _ in range(3):
        code = parsed("propose", run, "--target", "code")["weights"]["code"]
        assert 0.5 < code <= 0.8 + 1e-9
    names = {path.name for path in (run / "proposals").glob("code*")}
    assert names == {"code.yaml", "code-2.yaml", "code-3.yaml"}
    ended = mixopt("propose", run, "--free", "code")
    assert ended.code == 2
    assert "--free code: the other domains fix the share of a single one" in ended.error


def test_propose_a_front(run, tmp_path):
    args = ("--pareto", "code", "--pareto", "help", "--points", 3)
    found = parsed("propose", run, *args, "--out", tmp_path / "front")
    assert found["targets"] == ["code", "help"]
    assert len(list((tmp_path / "front").glob("point-*.yaml"))) == len(found["points"])
    text = answered("propose", run, *args, "--out", tmp_path / "again")
    assert "Pareto front of code and help" in text


def test_predict_a_mixture(run, limits):
    files = ("--inventory", limits / "inventory.yaml", "--tokens", "6e6")
    files += ("--constraints", limits / "constraints.yaml")
    found = parsed("predict", run, "--weights", limits / "own.yaml", *files)
    assert found["weights"] == {"code": 0.3, "prose": 0.7}
    assert found["epochs"] == {"code": 0.9, "prose": 4.2}
    assert any("needs 4.2 epochs of its 1M tokens" in line for line in found["broken"])
    answer = answered("predict", run, "--weights", "prose=.7,code=.3", "--target", "help")
    for said in ("Mixture for help", "best trial (", "predicted: "):
        assert said in answer
    assert "limits in force: constraints.bounds" in answer
    answer = answered("predict", run, "--weights", "prose=.7,code=.3", *files)
    assert "broken constraint: " in answer


def test_a_file_of_a_mixture_is_predicted_as_its_weights(run, tmp_path):
    mine = {"code": 0.3, "prose": 0.7}
    (tmp_path / "own.yaml").write_text(json.dumps(mine))
    opened, path = load_run(run), str(tmp_path / "own.yaml")
    found = [opened.predict(item, tokens="1B") for item in (mine, path, Mixture(mine))]
    found += [predict(run, item, tokens=10**9) for item in (mine, path, Mixture(mine))]
    assert all(item.to_json() == found[0].to_json() for item in found)
    assert found[0].predicted.epochs["code"] == pytest.approx(0.3 / 20)
    for fields in ({"bounds": {"code": 0.25}}, ConstraintsConfig(bounds={"code": 0.25})):
        assert opened.propose(constraints=fields).mixture["code"] == pytest.approx(0.25)


def test_readiness_and_an_evaluation_on_the_validated_runs(run):
    losses = parsed("status", run, "--readiness")["losses"]
    assert [loss["name"] for loss in losses] == ["code", "prose", "help"]
    assert "How well the trials tell mixtures apart" in answered("status", run, "--readiness")
    args = ("fit", run, "--test", run / "validation.parquet")
    assert parsed(*args)["targets"].keys() == {"code", "prose", "help"}
    assert " test runs\n" in answered(*args)


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


def test_status_verify_and_report_of_a_run_and_status_of_its_folder(run):
    headline = load_run(run).recommendation.headline
    assert answered("status", run).splitlines()[0] == headline
    sweep = parsed("status", run)["steps"]["sweep"]
    counts = [sweep[name] for name in ("state", "trials", "ended", "finished", "failed")]
    assert counts == ["done", 12, 12, 12, 0]
    assert all(part["state"] == "whole" for part in parsed("verify", run)["parts"])
    (entry,) = parsed("status", run.parent)["runs"]
    assert [entry[name] for name in ("run", "state", "answer")] == ["run", "done", headline]
    assert "Runs in" in answered("status", run.parent)
    (run / "report.html").write_text("")
    assert answered("report", run) == f"report: {run / 'report.html'}\n"
    assert "<html" in (run / "report.html").read_text()


def test_predict_says_what_a_job_would_draw(run):
    found = parsed("predict", run, "--tokens", "1e5", "--batch", "8x64")
    assert found["weights"] == dict(load_run(run).recommendation.mixture)
    draws = found["draws"]
    drawn = {domain["domain"]: domain["tokens"] / draws["tokens"] for domain in draws["domains"]}
    assert drawn == pytest.approx(found["weights"], abs=8 / 195)
    args = ("--tokens", "1e5", "--batch", "8x64", "--weights", "prose=.7,code=.3")
    assert "Share of the tokens by stage" in answered("predict", run, *args)


def test_a_schedule_of_a_run_is_predicted_with_what_the_run_knows(run, tmp_path):
    out = tmp_path / "schedule.yaml"
    args = ("export", run, "--to", "schedule", "--tokens", 1e5, "--batch", "8x64", "--out", out)
    said = answered(*args).splitlines()
    assert said == [f"{out}: 99,840 tokens in 195 steps", f"next: mixopt predict {out}"]
    assert [parsed(*args)[name] for name in ("file", "batch")] == [str(out), 8]
    sizes = {domain["domain"]: domain["inventory"] for domain in parsed("predict", out)["domains"]}
    assert sizes == load_run(run).inventory


def test_no_command_has_more_than_twelve_options_or_trusts_unasked():
    from typer.main import get_command

    from mixopt.cli.main import app

    commands = get_command(app).commands
    assert list(commands) == [
        *("init", "check", "run", "status", "stop", "report", "predict", "propose", "fit"),
        *("import", "export", "pretrain", "experts", "verify", "sync"),
    ]
    for name, call in commands.items():
        options = {o for p in call.params for o in p.opts if o.startswith("--")}
        assert "--json" in options, name
        assert len(options) <= 12, name
        assert not any(p.default for p in call.params if p.name in ("trust", "as_json")), name
    (points,) = (p for p in commands["propose"].params if p.name == "points")
    assert points.default == 9


def test_weights_are_read_by_domain_or_from_a_file_and_a_size_is_parameters_and_tokens(tmp_path):
    assert dict(read_mixture("web=.5, a=b=.5")) == {"web": 0.5, "a=b": 0.5}
    path = tmp_path / "mine.yaml"
    path.write_text("{web: 0.5, code: 0.4}")
    with pytest.raises(MixoptError) as error:
        read_mixture(str(path))
    assert str(error.value) == f"{path}: weights add up to 0.9, not 1: divide each by 0.9"
    assert read_size("parameters=1B, tokens=25e9") == {"parameters": 1e9, "tokens": 25e9}
    assert read_size(None) == {}
    refuses(MixoptError, "--at tokens: 'much' is not a number of tokens", read_size, "tokens=much")
    for wrong in ("1e9", "layers=3"):
        refuses(MixoptError, f"--at {wrong}: expected parameters=P or tokens=T", read_size, wrong)


@pytest.mark.parametrize(
    ("text", "expected"), [("name: web", "web"), ("seed: 3", "a"), ("name: ../b", "a")]
)
def test_a_run_is_in_the_folder_of_the_name_that_the_file_has(tmp_path, text, expected):
    (tmp_path / "a.yaml").write_text(text)
    assert directory_of(tmp_path / "a.yaml", None) == Path("runs") / expected
    assert directory_of(tmp_path / "a.yaml", Path("mine")) == Path("mine")


def test_what_an_answer_quotes_cannot_steer_the_terminal_and_json_has_null_for_no_number(capsys):
    show("first\n\x1b[2Jsecond \u202e")
    say("a\nb")
    assert capsys.readouterr() == ("first\n\\x1b[2Jsecond \\u202e\n", "a\\nb\n")
    print_json({"a": float("nan"), 1: (2.5, float("inf")), "b": None})
    assert json.loads(capsys.readouterr().out) == {"a": None, "1": [2.5, None], "b": None}


def test_no_words_show_the_commands():
    ended = mixopt()
    assert ended.code == 2
    assert "Commands:" in ended.out + ended.error
    assert mixopt("--version").out == f"mixopt {__version__}\n"
