"""What commands print."""

import pytest
from command_line import mixopt

from mixopt.cli.options import say, show


def test_what_an_answer_quotes_cannot_steer_the_terminal(capsys):
    show("first\n\x1b[2Jsecond \u202e")
    say("a\nb")
    out, error = capsys.readouterr()
    assert out == "first\n\\x1b[2Jsecond \\u202e\n"
    assert error == "a\\nb\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("stop",), "mixopt: stop: missing argument 'RUN'; see mixopt stop --help\n"),
        (("frobnicate",), "mixopt: no such command 'frobnicate'; see mixopt --help\n"),
        (
            ("status", "--jsn"),
            "mixopt: status: no such option: --jsn (Possible options: --json);",
        ),
    ],
)
def test_a_wrong_word_of_a_command_is_one_line(words, line):
    ended = mixopt(*words)
    assert ended.code == 2
    assert ended.error.startswith(line)
    assert ended.error.count("\n") == 1


def test_no_words_show_the_commands():
    ended = mixopt()
    assert ended.code == 2
    assert "Commands:" in ended.out + ended.error
