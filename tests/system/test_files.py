"""A file is the old one or the new one, never half of one."""

import os

import pytest

from mixopt.errors import RunError
from mixopt.system import read_json, replacing, write_json


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.json"
    write_json(path, [1])

    def fail_half_way():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):
        fail_half_way()
    assert read_json(path) == [1]
    assert os.listdir(tmp_path) == ["table.json"]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "table.json"

    def fill_the_disk():
        with replacing(path), open("/dev/full", "w") as full:
            full.write("x" * 100_000)

    with pytest.raises(RunError, match=r"table\.json: cannot be written: No space left on device"):
        fill_the_disk()
