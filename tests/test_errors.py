"""A message is one line of bounded length, whatever the user or a file put into it."""

import pickle

from mixopt.errors import LONGEST_MESSAGE, ConfigError, MixoptError


def test_a_message_is_one_plain_line_also_from_a_child_process():
    error = ConfigError("a\nb\x1b[31m\u202e\udcffé")
    assert str(error) == r"a\nb\x1b[31m\u202e\udcffé"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_long_value_is_cut_in_the_middle():
    said = str(MixoptError(f"a.yaml: {'9' * 50_000} is no number"))
    assert len(said) <= LONGEST_MESSAGE + 5
    assert said.startswith("a.yaml: 9")
    assert said.endswith("9 is no number")
