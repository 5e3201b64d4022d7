"""A message is one line of bounded length, whatever the user or a file put into it."""

import pickle

from mixopt.errors import LONGEST_MESSAGE, ConfigError, MixoptError


def test_control_characters_and_line_ends_are_escaped():
    said = str(ConfigError("a\nb\x1b[31m\u202e\udcffé"))
    assert said == r"a\nb\x1b[31m\u202e\udcffé"


def test_a_long_value_is_cut_in_the_middle():
    said = str(MixoptError(f"a.yaml: {'9' * 50_000} is no number"))
    assert len(said) <= LONGEST_MESSAGE + 5
    assert said.startswith("a.yaml: 9")
    assert said.endswith("9 is no number")


def test_an_error_of_a_child_process_says_the_same():
    error = ConfigError("a\nb")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
