"""What commands print."""

from command_line import mixopt

from mixopt.cli.options import say, show


def test_what_an_answer_quotes_cannot_steer_the_terminal(capsys):
    show("first\n\x1b[2Jsecond \u202e")
    say("a\nb")
    out, error = capsys.readouterr()
    assert out == "first\n\\x1b[2Jsecond \\u202e\n"
    assert error == "a\\nb\n"


def test_no_words_show_the_commands():
    ended = mixopt()
    assert ended.code == 2
    assert "Commands:" in ended.out + ended.error
