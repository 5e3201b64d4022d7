"""Whether the files of a folder are what a manifest says."""

import hashlib
import os

import pytest

from mixopt.system import FileRecord, Verifier


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_that_a_manifest_lists_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "workers.log")
    record = FileRecord(0, hashlib.sha256().hexdigest())
    assert Verifier(tmp_path).fault("workers.log", record, deep=True) == "is not a file"
