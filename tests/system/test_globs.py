"""Names that patterns choose, and what is wrong with patterns."""

from __future__ import annotations

import pytest

from mixopt.errors import ConfigError
from mixopt.system import choice_fault, chosen, given_by, one_value

NAMES = ("mmlu_law:rc", "mmlu_maths:rc", "arc:rc", "code*", "lambada")


def test_a_glob_chooses_what_it_matches_in_the_order_of_the_names():
    assert chosen("*:rc", NAMES) == NAMES[:3]
    assert chosen("mmlu_*", NAMES) == NAMES[:2]
    assert chosen("MMLU_*", NAMES) == ()


def test_a_name_that_looks_like_a_glob_is_itself():
    assert chosen("code*", (*NAMES, "code_c")) == ("code*",)
    assert chosen("lambad", NAMES) == ()


def test_an_exact_name_wins_over_globs():
    given = given_by({"*": 1, "lambada": 5, "mmlu_*": 2}, NAMES)
    assert given["lambada"] == {"lambada": 5}
    assert given["mmlu_law:rc"] == {"*": 1, "mmlu_*": 2}


def test_globs_that_agree_give_their_value_and_others_are_refused():
    assert one_value({"*:rc": "lower", "arc*": "lower"}, NAMES, "f", "loss")["arc:rc"] == "lower"
    message = (
        "f: 'arc:rc' is matched by '*:rc' (lower) and by 'arc*' (higher); name 'arc:rc' itself, "
        "which overrides globs"
    )
    with pytest.raises(ConfigError) as error:
        one_value({"*:rc": "lower", "arc*": "higher"}, NAMES, "f", "loss")
    assert str(error.value) == message


def test_a_glob_that_matches_nothing_is_answered_with_the_nearest_names():
    fault = choice_fault("mlmu_*", NAMES, "loss")
    assert fault == (
        "'mlmu_*' matches no loss; the nearest are 'mmlu_law:rc', 'mmlu_maths:rc', 'lambada'"
    )
    assert choice_fault("*:cr", NAMES, "loss").startswith("'*:cr' matches no loss; the nearest are")
    assert choice_fault("lambda", NAMES, "loss") == "unknown loss 'lambda'; did you mean 'lambada'?"
    assert choice_fault("mmlu_*", NAMES, "loss") is None
