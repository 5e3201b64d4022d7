"""A folder of tasks: which files are tasks, and what tasks.yaml has of them."""

import gzip
import json

import pytest
import yaml
import zstandard

from mixopt.errors import ConfigError
from mixopt.tasks import read_task_folder

LINE = json.dumps({"id": "0", "context": "2 + 2 =", "continuation": " 4"}) + "\n"


def folder_of(tmp_path, notes=None, **files):
    for name, content in files.items():
        path = tmp_path / name.replace("_jsonl", ".jsonl").replace("_gz", ".gz")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if notes is not None:
        (tmp_path / "tasks.yaml").write_text(yaml.safe_dump(notes))
    return tmp_path


def test_a_task_is_called_what_its_file_is_packed_or_not(tmp_path):
    (tmp_path / "sums.jsonl").write_text(LINE)
    (tmp_path / "arc.easy.jsonl.gz").write_bytes(gzip.compress(LINE.encode()))
    (tmp_path / "code.jsonl.zst").write_bytes(zstandard.compress(LINE.encode()))
    for other in ("README.md", ".hidden.jsonl", "notes.json"):
        (tmp_path / other).write_text("x")
    found = read_task_folder(tmp_path)
    assert list(found) == ["arc.easy", "code", "sums"]
    for task in found.values():
        assert [item.answer for item in task.items()] == [" 4"]
        assert task.notes.metrics == ("bits_per_byte",)
        assert task.notes.family is None


def test_tasks_yaml_says_family_metric_source_and_licence(tmp_path):
    notes = {
        "sums": {
            "family": "math",
            "metric": ["accuracy", "bits_per_byte"],
            "normalisation": "none",
            "source": "made up",
            "licence": "CC0-1.0",
        }
    }
    found = read_task_folder(folder_of(tmp_path, notes, sums_jsonl=LINE, other_jsonl=LINE))
    assert found["sums"].notes.metrics == ("accuracy", "bits_per_byte")
    assert found["sums"].notes.licence == "CC0-1.0"
    assert found["other"].notes.family is None


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"sumz": {}}, r"tasks\.yaml: sumz: has no file of items .*; did you mean 'sums'\?"),
        ({"sums": {"famly": "x"}}, r"tasks\.yaml: .*famly"),
        ({"sums": {"metric": "exact_match"}}, r"tasks\.yaml: .*metric"),
        ({"sums": {"metric": []}}, "name at least one metric, and each only once"),
        ({"sums": {"metric": ["accuracy", "accuracy"]}}, "name at least one metric"),
        (["sums"], r"tasks\.yaml"),
    ],
)
def test_what_tasks_yaml_should_not_have_is_an_error(tmp_path, notes, message):
    with pytest.raises(ConfigError, match=message) as told:
        read_task_folder(folder_of(tmp_path, notes, sums_jsonl=LINE))
    assert "\n" not in str(told.value)


def test_two_files_of_one_task_are_an_error(tmp_path):
    folder_of(tmp_path, sums_jsonl=LINE, sums_jsonl_gz=gzip.compress(LINE.encode()))
    with pytest.raises(ConfigError, match=r"sums\.jsonl is task 'sums' too; remove one"):
        read_task_folder(tmp_path)


def test_a_folder_that_is_absent_or_empty_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        read_task_folder(tmp_path / "absent")
    with pytest.raises(ConfigError, match="has no tasks; one file for each"):
        read_task_folder(tmp_path)
