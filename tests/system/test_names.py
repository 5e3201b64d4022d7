"""Names that come from data, and the paths that they may lead to."""

from __future__ import annotations

import os

import pytest

from mixopt.errors import ConfigError, CorpusError, RunError
from mixopt.system import check_name, inside, name_fault


@pytest.mark.parametrize("name", ["web", "s2pdfv1:art & design", "数学", "a.b", "x" * 200, "a b"])
def test_names_that_swarms_have_are_taken(name):
    assert check_name(name, "domain") == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "at least one character"),
        ("  ", "at least one character"),
        ("a/b", "no '/'"),
        ("..\\b", "no '/'"),
        (".hidden", "begin with '.'"),
        ("..", "begin with '.'"),
        ("a\nb", "control"),
        ("a\x00", "control"),
        ("a\u2028b", "control"),
        ("a\u202eb", "control"),
        ("a\ud800", "control"),
        ("x" * 201, "at most 200 bytes, not 201"),
        ("é" * 101, "at most 200 bytes, not 202"),
        (3, "text, not int"),
        (None, "text, not NoneType"),
    ],
)
def test_names_that_could_harm_are_refused_in_one_line(name, reason):
    with pytest.raises(CorpusError, match=reason) as raised:
        check_name(name, "domain", CorpusError)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 200


def test_the_fault_of_a_good_name_is_none():
    assert name_fault("web") is None


def test_the_usual_error_is_of_the_configuration():
    with pytest.raises(ConfigError, match="trial 'a/b'"):
        check_name("a/b", "trial")


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "a/../../x", "a\x00b", "..", "a\\..\\b"])
def test_a_path_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    with pytest.raises(RunError):
        inside(tmp_path, name)


def test_a_link_that_leads_out_of_its_folder_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text("x")
    os.symlink("../secret", tmp_path / "run" / "corpus")
    with pytest.raises(RunError, match="outside"):
        inside(tmp_path / "run", "corpus")


def test_a_circle_of_links_is_one_line(tmp_path):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(RunError, match="cannot be resolved"):
        inside(tmp_path, "a")


def test_a_file_in_its_folder_is_found(tmp_path):
    assert inside(tmp_path, "web/train.bin") == tmp_path / "web/train.bin"


@pytest.mark.parametrize("quoted", ["a\nb", "\x1b[31m", "\u202eb", "\ud800", "a\u2028b"])
def test_what_an_error_quotes_cannot_begin_a_line_or_steer_a_terminal(quoted):
    said = str(RunError(f"config.yaml: {quoted}: unknown field"))
    assert said == f"config.yaml: {quoted.encode('unicode_escape').decode()}: unknown field"
