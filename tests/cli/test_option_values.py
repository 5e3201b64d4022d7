"""What commands are given in a word, and what they print."""

import json
from pathlib import Path

import pytest
from command_line import mixopt
from refusals import refuses

from mixopt import __version__
from mixopt.cli.mixture_commands import read_mixture, read_size
from mixopt.cli.options import directory_of, print_json, say, show
from mixopt.errors import MixoptError


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
