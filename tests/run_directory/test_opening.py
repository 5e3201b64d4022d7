"""Whose a run directory is."""

import pytest

from mixopt.errors import RunError
from mixopt.run_directory import working_in
from mixopt.system import temporary_path


def test_a_run_that_was_killed_before_its_first_file_begins_again(tmp_path):
    for name in (".lock", ".lock.lease", temporary_path(tmp_path / "config.yaml").name):
        (tmp_path / name).touch()
    with working_in(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_a_folder_of_somebody_elses_is_not_worked_in(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(RunError, match="is not empty and not a run directory"),
        working_in(tmp_path),
    ):
        pass
