"""A file is the old one or the new one; names that come from data, and paths they may lead to."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixopt.errors import ConfigError, CorpusError, RunError
from mixopt.system import (
    check_name,
    check_path,
    choice_fault,
    chosen,
    given_by,
    inside,
    one_line,
    one_value,
    only_one,
    read_json,
    replacing,
    write_json,
)

WRITES = """
import sys, time
from pathlib import Path
from mixopt.system import replacing, temporary_path
folder = Path(sys.argv[1])
temporary_path(folder / "corpus" / "web" / "train").mkdir(parents=True)
with replacing(folder / "trials.parquet"):
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of a write."""
    command = [sys.executable, "-c", WRITES, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        yield process
        process.kill()


def left(folder):
    return sorted(path for path in folder.rglob("*.tmp"))


def test_what_a_living_process_writes_stays_until_it_is_killed(tmp_path, writer):
    with only_one(tmp_path):
        assert len(left(tmp_path)) == 2
    writer.kill()
    writer.wait()
    assert len(left(tmp_path)) == 2
    with only_one(tmp_path):
        assert not left(tmp_path)


def test_what_another_host_left_is_removed_after_an_hour(tmp_path):
    young, old = (tmp_path / f".fit.json.00000000-12-0000000{k}.tmp" for k in range(2))
    for path, hours in ((young, 0.5), (old, 2)):
        path.touch()
        os.utime(path, (time.time() - hours * 3600,) * 2)
    with only_one(tmp_path):
        assert left(tmp_path) == [young]


def test_what_lies_behind_a_link_stays(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "run"
    (outside / ".a.tmp").mkdir(parents=True)
    folder.mkdir()
    (folder / "linked").symlink_to(outside)
    (folder / ".b.tmp").symlink_to(outside)
    os.utime(outside / ".a.tmp", (0, 0))
    os.utime(folder / ".b.tmp", (0, 0), follow_symlinks=False)
    with only_one(folder):
        assert not (folder / ".b.tmp").is_symlink()
    assert (outside / ".a.tmp").exists()


def test_a_write_that_fails_leaves_the_old_file_and_what_is_no_file_name_is_refused(tmp_path):
    path = tmp_path / "table.json"
    write_json(path, [1])
    with pytest.raises(ValueError), replacing(path) as temporary:
        raise ValueError(temporary.write_text("half"))
    with (
        pytest.raises(RunError, match=r"e\.json: cannot be written: No space left on device$"),
        replacing(path),
        open("/dev/full", "w") as full,
    ):
        full.write("x" * 100_000)
    assert read_json(path) == [1]
    assert os.listdir(tmp_path) == ["table.json"]
    with pytest.raises(RunError, match=r"^'\.': cannot be written: it is not a file name"):
        write_json(Path("."), [])


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


def test_an_error_is_one_line_with_its_kind_where_its_text_says_little():
    found = [one_line(error) for error in (OSError("a\n b"), KeyError("x"), RuntimeError())]
    assert found == ["a b", "KeyError: 'x'", "RuntimeError"]


def test_a_glob_that_matches_nothing_is_answered_with_names():
    fault = choice_fault("mlmu_*", NAMES, "loss")
    assert fault == f"'mlmu_*' matches no loss; known: {', '.join(sorted(NAMES))}"
    fault = choice_fault("lambada?", NAMES, "loss")
    assert fault == "'lambada?' matches no loss; did you mean 'lambada'?"
    assert choice_fault("lambda", NAMES, "loss") == "unknown loss 'lambda'; did you mean 'lambada'?"
    assert choice_fault("mmlu_*", NAMES, "loss") is None
