"""Files of unknown origin: what is read has the asked shape, or one line says what is wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel
from refusals import refuses

from mixopt.errors import ConfigError, MixoptError, RunError
from mixopt.system import checked_as, files, parse_yaml, read_arrays, read_json, read_yaml


class Step(BaseModel):
    """One step of a run."""

    fingerprint: str
    seconds: float | None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": NaN}', "NaN is not a number here"),
        (b"9" * 41, "a number of 41 digits"),
        (b"-1e999", "-1e999 is not a finite number"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_json_that_cannot_be_ours_is_one_line(tmp_path, text, message):
    path = tmp_path / "steps.json"
    path.write_bytes(text)
    line = refuses(RunError, message, read_json, path)
    assert str(path) in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sweep": {"seconds": 1.0}}, "sweep.fingerprint: is missing"),
        ({"sweep": {"fingerprint": 3, "seconds": 1.0}}, "sweep.fingerprint: .* got 3"),
    ],
)
def test_a_field_of_another_shape_is_named(content, message):
    refuses(RunError, f"steps.json: {message}", checked_as, dict[str, Step], content, "steps.json")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100000 values, aliases counted"),
        ("a: &a [*a]", ":1: more than 64 nested sections"),
        ("[" * 20_000, "more than 64 nested sections|too deep"),
        ("a: " + "1:" * 400_000 + "1", ":1: .*a number of 800001 digits"),
        ("9" * 41 + ": 1", ":1: .*a number of 41 digits"),
        ("a: !!timestamp now", "not valid YAML"),
        ("a: !!bool perhaps", "not valid YAML"),
        ("? [a]\n: 1", ":1: .*a key must be plain text"),
        ("a: !!python/object/apply:os.system [x]", "not valid YAML"),
        ("x" * 2_000_001, "at most 1000000"),
    ],
)
def test_yaml_that_cannot_have_been_meant_is_refused_before_it_is_built(text, message):
    refuses(ConfigError, message, parse_yaml, text, "c.yaml")


def test_ordinary_yaml_is_read_its_values_counted_and_the_line_of_each_field_known(monkeypatch):
    text = "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}"
    assert parse_yaml(text, "c.yaml")[0] == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}
    text = "a: 1\nb: {c: [2]}"
    lines = {("a",): 1, ("b",): 2, ("b", "c"): 2, ("b", "c", 0): 2}
    assert parse_yaml(text, "c.yaml")[1] == lines
    assert parse_yaml("", "c.yaml") == (None, {})
    refuses(ConfigError, r"^c\.yaml:2: a: given twice$", parse_yaml, "a: 1\na: 2", "c.yaml")
    monkeypatch.setattr(files, "MAX_VALUES", 4)
    assert parse_yaml("[1, 2, 3]", "c.yaml")[0] == [1, 2, 3]
    refuses(ConfigError, "more than 4 values", parse_yaml, "[1, 2, 3, 4]", "c.yaml")


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    class Bad:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    np.savez(tmp_path / "a.npz", x=np.array([Bad()], dtype=object))
    refuses(RunError, "cannot be read", read_arrays, tmp_path / "a.npz")
    assert not (tmp_path / "executed").exists()


def test_arrays_come_back_and_ones_that_are_cut_or_too_large_are_one_line(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=np.arange(30.0))
    whole = (tmp_path / "a.npz").read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "cut.npz").write_bytes(whole[:end])
        with pytest.raises(RunError):
            read_arrays(tmp_path / "cut.npz")
    for content in (b"text", b"\x80\x04.", b""):
        (tmp_path / "no.npz").write_bytes(content)
        refuses(RunError, "not a zip file$", read_arrays, tmp_path / "no.npz")
    monkeypatch.setattr(files, "MAX_ARRAY", 368)
    (found,) = read_arrays(tmp_path / "a.npz").items()
    assert (found[0], found[1].tolist()) == ("x", list(range(30)))
    monkeypatch.setattr(files, "MAX_ARRAY", 367)
    refuses(RunError, r"a\.npz: x\.npy: 368 bytes are too large$", read_arrays, tmp_path / "a.npz")
    refuses(RunError, r"b\.npz: not found$", read_arrays, tmp_path / "b.npz")


def test_what_is_no_file_or_has_a_terabyte_that_takes_no_room_is_not_read(tmp_path):
    refuses(RunError, r"^'a\\x00b': cannot be read: .*null", read_json, Path("a\0b"))
    with (tmp_path / "steps.json").open("wb") as stream:
        stream.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe")
    refuses(RunError, f"{1 << 40} bytes are too large", read_json, tmp_path / "steps.json")
    for read in (read_yaml, read_arrays):
        refuses(MixoptError, "it is not a file", read, tmp_path / "pipe")
