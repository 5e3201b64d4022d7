"""What trainers write of losses, and damaged files of each kind."""

import json
import math
import os

import pytest
from mixopt_proxies.command.command_proxy import result_file
from mixopt_proxies.command.result_file import read_log

from mixopt.errors import RunError


def read(folder, result):
    return read_log(result_file(folder, result))


def last(values):
    return {name: points[-1].value for name, points in values.series.items()}


def test_json_is_flattened_and_keeps_what_is_no_number(tmp_path):
    content = {"loss": {"web": 3.5, "code": math.nan}, "n": 2, "text": "x", "ok": True, "no": None}
    (tmp_path / "m.json").write_text(
        json.dumps(content | {"inf": "Infinity", "trial": "t1", "big": 10**400})
    )
    values = read(tmp_path, "m.json")
    assert {**last(values), "loss.code": 0} == {
        "loss.web": 3.5, "loss.code": 0, "n": 2.0, "inf": math.inf, "big": math.inf
    }  # fmt: skip
    assert math.isnan(last(values)["loss.code"])
    assert values.about == {"trial": "t1"}


@pytest.mark.parametrize(("below", "names"), [(31, ["x" + ".x" * 31]), (32, [])])
def test_names_are_looked_for_32_mappings_deep(tmp_path, below, names):
    (tmp_path / "m.json").write_text('{"x": ' * (below + 1) + "1" + "}" * (below + 1))
    assert list(read(tmp_path, "m.json").series) == names


def test_the_log_history_of_a_hugging_face_trainer_is_a_series(tmp_path):
    history = [{"loss": 4.0, "step": 10}, {"eval_web_loss": 3.0, "step": 10},
               {"eval_web_loss": 2.5, "step": 20}]  # fmt: skip
    content = {"global_step": 20, "log_history": history}
    (tmp_path / "trainer_state.json").write_text(json.dumps(content))
    points = read(tmp_path, "*.json").series["log_history.eval_web_loss"]
    assert [(point.step, point.value) for point in points] == [(10, 3.0), (20, 2.5)]


def test_lines_of_json_and_tables_are_series_with_their_place(tmp_path):
    rows = [{"step": 1, "tokens": 100, "web": 3.0}, {"step": 2, "tokens": 200, "lr": 0.1},
            {"step": 3, "tokens": 300, "web": 2.0}]  # fmt: skip
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    table = "\ufeffstep, tokens,web,lr,trial\n1,100,3.0,,t1\n2,200,,0.1,\n3,300,2.0,,\n"
    (tmp_path / "m.csv").write_text(table)
    for name in ("m.jsonl", "m.csv"):
        values = read(tmp_path, name)
        assert values.about == {"tokens": 300} | ({"trial": "t1"} if name == "m.csv" else {})
        points = values.series["web"]
        assert [(p.step, p.tokens, p.value) for p in points] == [(1, 100, 3.0), (3, 300, 2.0)]


def test_of_the_files_that_a_glob_matches_the_newest_counts(tmp_path):
    for step, loss in ((1000, 1.0), (500, 2.0)):
        path = tmp_path / f"checkpoint-{step}" / "trainer_state.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"loss": loss}))
        os.utime(path, (step, step))
    assert last(read(tmp_path, "checkpoint-*/trainer_state.json")) == {"loss": 1.0}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", "[1]", "m.json: expected names with values, got list"),
        ("m.json", b"\xff", "m.json: byte 0 is not UTF-8"),
        ("m.jsonl", '{"a": 1}\n{"a":', r"m.jsonl:2: cannot be read: Expecting value"),
        ("m.csv", "a,b\n1,2,3\n", "m.csv:2: has more cells than the header"),
        ("m.yaml", "a: 1", "m.yaml: is no JSON, JSONL or CSV file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_fault(tmp_path, name, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RunError, match=message):
        read(tmp_path, name)
