"""Names that come from data, and the paths that they may lead to."""

import pytest

from mixopt.errors import ConfigError, CorpusError, RunError
from mixopt.system import check_name, check_path, choice_fault, chosen, given_by, inside, one_value


def test_names_that_swarms_have_are_taken(tmp_path):
    name = "s2pdfv1:art & design 数学"
    assert check_name(name, "domain") == check_path(name, "domain") == name
    assert check_path("a/b", "domain") == "a/b"
    assert check_name("x" * 200, "domain")
    assert inside(tmp_path, "a/b") == tmp_path / "a/b"


@pytest.mark.parametrize(
    ("check", "name", "reason"),
    [
        (check_name, "", "at least one character"),
        (check_name, "a/b", "no '/'"),
        (check_name, ".hidden", "begin with '.'"),
        (check_name, "a\x00", "control"),
        (check_name, "é" * 101, "at most 200 bytes, not 202"),
        (check_name, None, "text, not NoneType"),
        (check_path, "a/.hidden", "begin with '.'"),
        (check_path, "é" * 101, "at most 200 bytes, not 202"),
        (check_path, None, "text, not NoneType"),
    ],
)
def test_names_that_could_harm_are_refused_in_one_line(check, name, reason):
    with pytest.raises(CorpusError, match=reason) as raised:
        check(name, "domain", CorpusError)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("/etc/hostname", "is outside this folder; it is not read"),
        ("a/../../x", "is outside this folder; it is not read"),
        ("linked", "is outside this folder; it is not read"),
        ("a\\x", "is not a file name"),
        ("a\x1b", "is not a file name"),
        ("circle", "cannot be resolved: "),
    ],
)
def test_a_path_that_leads_out_of_its_folder_or_nowhere_is_one_line(tmp_path, name, what):
    (tmp_path / "linked").symlink_to(tmp_path.parent)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(RunError) as error:
        inside(tmp_path, name)
    assert str(error.value).startswith(f"{tmp_path}: {name!r} {what}")


NAMES = ("mmlu_law:rc", "mmlu_maths:rc", "arc:rc", "code*", "lambada")


def test_a_glob_chooses_what_it_matches_in_the_order_of_the_names_and_an_exact_name_wins():
    assert chosen("*:rc", NAMES) == NAMES[:3]
    assert chosen("mmlu_*", NAMES) == NAMES[:2]
    assert chosen("MMLU_*", NAMES) == ()
    given = given_by({"*": 1, "lambada": 5, "mmlu_*": 2}, NAMES)
    assert given["lambada"] == {"lambada": 5}
    assert given["mmlu_law:rc"] == {"*": 1, "mmlu_*": 2}


def test_globs_that_agree_give_their_value_and_others_are_refused():
    assert one_value({"*:rc": "lower", "arc*": "lower"}, NAMES, "f", "loss")["arc:rc"] == "lower"
    with pytest.raises(ConfigError) as error:
        one_value({"*:rc": "lower", "arc*": "higher"}, NAMES, "f", "loss")
    assert str(error.value) == (
        "f: 'arc:rc' is matched by '*:rc' (lower) and by 'arc*' (higher); name 'arc:rc' itself, "
        "which overrides globs"
    )


def test_a_glob_that_matches_nothing_is_answered_with_the_nearest_names():
    fault = choice_fault("mlmu_*", NAMES, "loss")
    assert fault == (
        "'mlmu_*' matches no loss; the nearest are 'mmlu_law:rc', 'mmlu_maths:rc', 'lambada'"
    )
    assert choice_fault("*:cr", NAMES, "loss").startswith("'*:cr' matches no loss; the nearest are")
    assert choice_fault("lambda", NAMES, "loss") == "unknown loss 'lambda'; did you mean 'lambada'?"
    assert choice_fault("mmlu_*", NAMES, "loss") is None
