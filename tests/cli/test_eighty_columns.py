"""Every command, piped, on a terminal of 80 columns: nothing is wider, coloured or cut."""

from __future__ import annotations

import json
import shutil

import pytest
import typer
import yaml
from command_line import mixopt

from mixopt.cli.main import app

WIDTH = 80


def commands() -> list[tuple[str, ...]]:
    """Return the words of every command."""
    root = typer.main.get_command(app)
    found = []
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found += [(name,)] if inner is None else [(name, other) for other in inner]
    return found


@pytest.fixture(autouse=True)
def narrow(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def here(run, tmp_path, empty_database):
    """A copy of the run by a short name, and files that commands are asked about."""
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run, tmp_path / "other")
    shutil.copy(empty_database, tmp_path / "run" / "mlflow.db")
    contents = {
        "own": {"weights": {"code": 0.3, "prose": 0.7}},
        "inventory": {"code": "2e6", "prose": "1e6"},
        "limits": {"max_epochs": 4},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for name in ("code", "prose"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        rows = [{"text": f"{name} {number}: {'a line of text ' * 9}"} for number in range(60)]
        (folder / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "items").mkdir()
    item = {"id": "1", "context": "two and two are", "choices": [" four", " five"], "gold": 0}
    (tmp_path / "items" / "sums.jsonl").write_text(json.dumps(item) + "\n")
    return tmp_path


def too_wide(text: str) -> list[str]:
    """Return the lines that are too wide and could be broken: commands to copy stay whole."""
    wide = [line for line in text.splitlines() if len(line) > WIDTH]
    return [line for line in wide if not line.startswith("next: ") and " " in line.strip()]


def fine(ended, code=0):
    """Check what a command printed."""
    assert ended.code == code, ended.error
    for text in (ended.out, ended.error):
        assert too_wide(text) == []
        assert "\x1b" not in text
    return ended


ANSWERS = {
    "run": "run run",
    "status": "status run",
    "list": "list .",
    "compare": "compare run other",
    "check": "check run",
    "count": "count run",
    "doctor": "doctor",
    "init": "init data --out new.yaml",
    "prepare": "prepare run",
    "design": "design run",
    "sweep": "sweep run",
    "fit": "fit run",
    "validate": "validate run",
    "report": "report run",
    "propose": "propose run --target code",
    "predict": "predict run --weights code=.3,prose=.7 --tokens 6e6 --inventory inventory.yaml"
    " --constraints limits.yaml",
    "readiness": "readiness run",
    "evaluate": "evaluate run --trials run/validation.parquet",
    "import": "import --uri sqlite:///run/mlflow.db --experiment tiny --run run/sweep"
    " --out t.parquet",
    "export": "export run --to megatron --paths paths.yaml",
    "schedule": "schedule run --tokens 1e5 --batch 8 --sequence-length 64 --out schedule.yaml",
    "simulate": "simulate run/proposal.yaml --batches 3 --batch-size 8 --length 64",
    "logs": "logs run",
    "cancel": "cancel run",
    "verify": "verify run",
    "sync": "sync run",
    "tasks check": "tasks check items",
    "tasks export-lm-eval": "tasks export-lm-eval items --out exported",
}
FRAGMENTS = {"export"}  # what somebody copies into a file is never wrapped
RESULTS = {
    "prepare": ("tokenizer", "tokens"),
    "design": ("trials", "roles"),
    "sweep": ("trials", "table"),
    "fit": ("regressor", "summary", "readiness"),
    "validate": ("recommendation", "validation"),
    "report": ("report",),
}
# What needs hours, a cluster, a store or a checkpoint is asked for what it refuses.
REFUSALS = {
    "experts": "experts run",
    "export-model": "export-model nowhere --out model",
    "work": "work run",
    "pretrain": "pretrain run/config.yaml --out pre",
    "anneal": "anneal run/config.yaml --sources code --out run",
    "tokens import": "tokens import none.bin shards --tokenizer gpt2 --dtype uint16",
    "tokens publish": "tokens publish nowhere s3://bucket/corpus",
    "tasks import": "tasks import nowhere",
    "tasks readiness": "tasks readiness run",
    "tasks score": "tasks score nowhere --tasks items",
}


SLOW = {"sync", "import"}  # MLflow's process starts each time


def with_slow(names):
    """Return the names as parameters, some of which are slow."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


def test_every_command_is_asked_here():
    assert {" ".join(words) for words in commands()} == ANSWERS.keys() | REFUSALS.keys()


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_help_of_a_command_fits(words):
    fine(mixopt(*words, "--help"))


def test_no_summary_of_a_command_is_cut():
    for words in ((), ("tasks",), ("tokens",)):
        summaries = fine(mixopt(*words, "--help")).out.partition("Commands:")[2]
        assert summaries
        assert "..." not in summaries


@pytest.mark.parametrize("name", with_slow(ANSWERS))
def test_an_answer_fits_and_is_json_where_that_is_asked(here, name):
    (here / "paths.yaml").write_text("code: data/code\nprose: data/prose\n")
    if name == "import":
        fine(mixopt("sync", "run"))
    ended = mixopt(*ANSWERS[name].split())
    assert ended.code == 0, ended.error
    if name not in FRAGMENTS:
        fine(ended)
    if name == "init":
        (here / "new.yaml").unlink()
    if name in ("schedule", "tasks export-lm-eval"):
        shutil.rmtree("exported", ignore_errors=True)
    ended = mixopt(*ANSWERS[name].split(), "--json")
    assert ended.code == 0, ended.error
    answer = json.loads(ended.out)
    assert set(RESULTS.get(name, ())) <= answer.get("result", {}).keys()


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_fits(here, name):
    ended = fine(mixopt(*REFUSALS[name].split()), code=2)
    assert ended.error.startswith("mixopt: ")


def test_a_message_is_broken_between_words_and_its_further_lines_are_indented(here):
    (here / "wrong.yaml").write_text("objectives: {target: help}\n")
    lines = fine(mixopt("check", "wrong.yaml"), code=2).error.splitlines()
    assert all(line.startswith(("mixopt: ", "  ")) for line in lines)
