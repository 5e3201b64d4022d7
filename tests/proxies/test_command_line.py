"""The words of a command: split without a shell, then filled in."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from mixopt_proxies.command.trainer_command import PLACEHOLDERS, TrainerCommand
from refusals import refuses

from mixopt.config import load_config
from mixopt.errors import ConfigError
from mixopt.pipeline import check


def command(run, folder=None):
    return TrainerCommand(run, "m.json", folder=folder)


VALUES = {name: f"<{name}>" for name in PLACEHOLDERS}


def test_a_string_is_split_as_a_shell_would_and_then_filled_in():
    line = command("train --data '{out}/a b' --seed={seed} \"two words\"")
    values = {**VALUES, "out": "/place with space; rm -rf", "seed": "5"}
    wanted = ["train", "--data", "/place with space; rm -rf/a b", "--seed=5", "two words"]
    assert line.filled(values) == wanted


@given(st.text(alphabet="ab{} \"'", max_size=12))
def test_a_word_is_filled_in_or_refused_and_never_half_of_both(word):
    try:
        filled = command(["train", word]).filled(VALUES)[1]
    except ConfigError:
        return
    assert filled.replace("{", "{{").replace("}", "}}") == word


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("", "proxy.run: is empty"),
        ("train {sed}", r"unknown placeholder \{sed\} in .*; did you mean 'seed'\?; known: \{mix"),
        ("train {seed:03}", r"unknown placeholder \{seed\} in '\{seed:03\}'"),
        ("train {x", r"a single brace in '\{x'"),
        (
            "train > log",
            "proxy.run: '>' is shell syntax, but this command runs without a shell; write bash -c",
        ),
    ],
)
def test_what_cannot_be_a_command_is_refused(run, message):
    refuses(ConfigError, message, command, run)


@pytest.mark.parametrize(
    ("run", "folder", "message"),
    [
        ("no_such_trainer {seed}", None, "no such program: 'no_such_trainer'$"),
        ("A=1 train", None, "'A=1'; write env NAME=value before the program"),
        ("./train", "/usr", "from /usr: './train'"),
        ([sys.executable, "no.py"], "/usr", "proxy.run: no such script from /usr: 'no.py'"),
        ("bash /no/such.py", None, "proxy.run: no such script: '/no/such.py'"),
    ],
)
def test_a_program_or_a_script_that_is_not_there_is_refused_before_a_trial(run, folder, message):
    refuses(ConfigError, message, command(run, folder).check_here)


@pytest.mark.parametrize(
    ("run", "folder"),
    [
        ([sys.executable, "x"], None),
        ("bash -c 'exit 1'", "/usr"),
        ([sys.executable, "{out}/x.py"], "/usr"),
    ],
)
def test_what_may_be_there_is_not_refused(run, folder):
    command(run, folder).check_here()


OWN = """\
corpus: {domains: {web: {tokens: 1e12}, code: {tokens: 2e11}}}
evaluation: {exam: {}}
proxy: {name: command, run: python train.py, folder: trainer, result: m.json}
objective: {target: exam, unit: nats_per_token}
"""


def test_a_folder_is_relative_to_the_experiment_s_file_and_check_finds_what_is_missing(
    tmp_path, monkeypatch
):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    place, config = tmp_path / "trainer", load_config("../own.yaml")
    assert Path(config.proxy.folder).resolve() == place

    def problems():
        return [str(problem) for problem in check(config).problems]

    assert problems() == [f"proxy.folder: {place}: no such folder"]
    place.mkdir()
    assert problems() == [f"proxy.run: no such script from {place}: 'train.py'"]
    (place / "train.py").write_text("")
    assert problems() == []
