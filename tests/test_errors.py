"""A message is one line of bounded length, whatever the user or a file put into it."""

import pickle

from mixopt.errors import ConfigError, MixoptError


def test_a_message_is_one_plain_line_of_2000_characters_at_most_also_from_a_child_process():
    error = ConfigError("a\nb\x1b[31m\u202e\udcffé")
    assert str(error) == r"a\nb\x1b[31m\u202e\udcffé"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(MixoptError("9" * 2_000)) == "9" * 2_000
    text = str(MixoptError(f"a.yaml: {'9' * 50_000} is no number"))
    assert text == f"a.yaml: {'9' * 1_492} ... {'9' * 487} is no number"
