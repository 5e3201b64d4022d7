"""Seals, sealed tables and manifests: a single changed bit is found."""

import hashlib
import json
import os
import warnings
from contextlib import suppress

import polars as pl
import pytest
from flips import flips
from made_proposal import made_recommendation

from mixopt import Mixture
from mixopt.errors import MixoptError, RunError
from mixopt.system import (
    FileRecord,
    Verifier,
    file_record,
    folder_records,
    read_sealed,
    read_table,
    write_sealed,
    write_table,
)

TABLE = pl.DataFrame({"a": [1.0, 2.0, float("nan")], "b": ["x", None, "z"], "c": [1, None, 3]})


def test_every_flip_in_sealed_json_is_found_or_harmless(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"x": (1, 2), "y": {"3": 0.1}})
    assert read_sealed(path, hint="redo") == {"x": [1, 2], "y": {"3": 0.1}}
    for _ in flips(path, step=1):
        with suppress(RunError):
            assert read_sealed(path, hint="redo") == {"x": [1, 2], "y": {"3": 0.1}}


def test_every_flip_in_a_sealed_table_is_found_or_harmless(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, TABLE)
    found = []
    for _ in flips(path, step=401):
        try:
            assert read_table(path).equals(TABLE)
            found.append(False)
        except RunError as error:
            found.append("sha256 differs" in str(error))
    assert sum(found) > 0.9 * len(found)


def test_files_of_a_folder_are_recorded_without_hidden_ones_and_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "fit" / "regressor").mkdir(parents=True)
    for name in ("fit/fit.json", "fit/regressor/a.npz", "fit/.lock", "fit/.a.tmp", "other"):
        (tmp_path / name).write_text(name)
    assert list(folder_records(tmp_path, ["fit"])) == ["fit/fit.json", "fit/regressor/a.npz"]
    os.mkfifo(tmp_path / "workers.log")
    record = FileRecord(0, hashlib.sha256().hexdigest())
    assert Verifier(tmp_path).fault("workers.log", record, deep=True) == "is not a file"


def test_a_large_file_is_read_once_until_it_changes(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(bytes(1_000_000))
    record = file_record(path)
    assert not Verifier(tmp_path).knows("shard", record)
    assert Verifier(tmp_path).faults({"shard": record}) == {}
    assert Verifier(tmp_path).knows("shard", record)
    assert not Verifier(tmp_path).knows("absent", record)
    wrong = FileRecord(record.bytes, "0" * 64)
    assert "sha256 differs" in Verifier(tmp_path).faults({"shard": wrong})["shard"]
    stamp = path.stat()
    path.write_bytes(b"\x01" + bytes(999_999))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "sha256 differs" in Verifier(tmp_path).faults({"shard": record})["shard"]
    claimed = [1_000_000, stamp.st_mtime_ns, 0, 0]  # as a directory may come with
    (tmp_path / ".verified.json").write_text(json.dumps({f"shard {record.sha256}": claimed}))
    assert "sha256 differs" in Verifier(tmp_path).faults({"shard": record})["shard"]


def test_a_damaged_table_of_somebody_elses_is_one_line(tmp_path):
    TABLE.write_parquet(tmp_path / "a.parquet")
    for _ in flips(tmp_path / "a.parquet", count=200):
        try:
            read_table(tmp_path / "a.parquet")
        except RunError as error:
            message = str(error)
        else:
            continue
        assert "a.parquet: cannot be read: " in message
        assert "\n" not in message


@pytest.mark.parametrize("step", [24, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_flip_in_a_recommendation_is_found_or_harmless_also_as_a_mixture(tmp_path, step):
    path = tmp_path / "recommendation.yaml"
    made_recommendation(standing="undecided", warnings=("tasks are few",)).to_file(path)
    whole = Mixture.from_file(path)
    for _ in flips(path, count=720 // step):
        with warnings.catch_warnings(record=True) as said, suppress(MixoptError):
            warnings.simplefilter("always")
            assert Mixture.from_file(path) == whole or said
