"""What the real libraries write of losses, and damaged files of each kind."""

import json
import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from mixopt_proxies.command.results import find_result, read_result

from mixopt.errors import RunError


def read(folder, result):
    return read_result(folder, find_result(folder, result))


def last(values):
    return {name: points[-1].value for name, points in values.series.items()}


def test_json_is_flattened_and_keeps_what_is_no_number(tmp_path):
    content = {"loss": {"web": 3.5, "code": math.nan}, "n": 2, "text": "x", "ok": True, "no": None}
    (tmp_path / "m.json").write_text(json.dumps(content | {"inf": "Infinity", "trial": "t1"}))
    values = read(tmp_path, "m.json")
    assert {**last(values), "loss.code": 0} == {
        "loss.web": 3.5, "loss.code": 0, "n": 2.0, "inf": math.inf
    }  # fmt: skip
    assert math.isnan(last(values)["loss.code"])
    assert values.said == {"trial": "t1"}


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
    table = "\ufeffstep, tokens,web,lr\n1,100,3.0,\n2,200,,0.1\n3,300,2.0,\n"
    (tmp_path / "m.csv").write_text(table)
    (tmp_path / "m.tsv").write_text(table.replace(",", "\t"))
    for name in ("m.jsonl", "m.csv", "m.tsv"):
        points = read(tmp_path, name).series["web"]
        assert [(p.step, p.tokens, p.value) for p in points] == [(1, 100, 3.0), (3, 300, 2.0)]


def test_a_table_may_say_nan(tmp_path):
    (tmp_path / "m.csv").write_text("web\n3.0\nnan\n")
    assert math.isnan(last(read(tmp_path, "m.csv"))["web"])


def test_files_of_a_glob_have_their_path_in_the_names(tmp_path):
    for name, value in (("web", 1.0), ("code", 2.0)):
        (tmp_path / "eval").mkdir(exist_ok=True)
        (tmp_path / "eval" / f"{name}.json").write_text(json.dumps({"loss": value, "seed": 5}))
    values = read(tmp_path, "eval/*.json")
    assert last(values)["eval/web/loss"] == 1.0
    assert last(values)["eval/code/loss"] == 2.0
    (tmp_path / "eval" / "web.json").write_text('{"loss": 1, "seed": 6}')
    with pytest.raises(RunError, match=r"seed is 5 in one file and 6 in web.json"):
        read(tmp_path, "eval/*.json")


@pytest.fixture
def tensorboard(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter
    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step in range(2_000):
            writer.add_scalar("eval/web", 4 - step / 1_000, step)
        writer.add_histogram("weights", np.arange(10.0), 1)
        writer.add_text("note", "hello", 1)
        writer.add_scalars("val", {"code": 2.5}, 1_999)
        writer.add_scalar("bad", math.nan, 1)
        writer.add_scalar("tensor", 1.25, 7, new_style=True)
    return tmp_path


def test_scalars_of_tensorboard_are_read_all_of_them(tensorboard):
    values = read(tensorboard, "tb")
    assert len(values.series["eval/web"]) == 2_000
    point = values.series["eval/web"][-1]
    assert (point.step, point.value) == (1_999, pytest.approx(4 - 1.999))
    assert last(values)["val_code/val"] == 2.5
    assert last(values)["tensor"] == 1.25
    assert math.isnan(last(values)["bad"])
    assert "weights" not in values.series
    assert last(read(tensorboard, "tb/events*"))["tensor"] == 1.25


def test_the_tensors_of_tensorboards_own_writer_are_read(tmp_path):
    from tensorboard.summary import Writer

    writer = Writer(str(tmp_path / "tb"))
    writer.add_scalar("eval/web", 3.25, 10)
    writer.close()
    (point,) = read(tmp_path, "tb").series["eval/web"]
    assert (point.step, point.value) == (10, 3.25)


def test_an_event_file_that_is_damaged_is_told_and_one_that_was_cut_off_is_read(tensorboard):
    (path,) = (tensorboard / "tb").glob("events*")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-5])
    assert last(read(tensorboard, "tb"))["eval/web"] == pytest.approx(4 - 1.999)
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"is not an event file of TensorBoard: the checksum"):
        read(tensorboard, "tb")


WANDB = """
import wandb
run = wandb.init(project="p", config={"seed": 5, "trial": "t0001", "lr": 0.1})
for step in range(3):
    run.log({"eval/web": 3 - step / 10, "nested": {"code": step}, "long": "x" * 40_000})
run.log({"bad": float("nan")})
run.summary["final"] = 1.5
run.finish()
"""


@pytest.fixture(scope="module")
def wandb_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wandb")
    keys = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    environment |= dict.fromkeys(keys, str(folder / "cache"))
    words = [sys.executable, "-c", WANDB]
    subprocess.run(words, cwd=folder, env=environment, check=True, timeout=120)
    return folder


def test_a_wandb_run_is_read_with_history_summary_and_configuration(wandb_run):
    for result in ("wandb", "wandb/offline-run-*/*.wandb", "wandb/latest-run"):
        values = read(wandb_run, result)
        points = values.series["eval/web"]
        assert [(point.step, point.value) for point in points] == [(0, 3.0), (1, 2.9), (2, 2.8)]
        assert last(values)["nested.code"] == 2.0
        assert last(values)["final"] == 1.5
        assert math.isnan(last(values)["bad"])
        assert values.said == {"seed": 5, "trial": "t0001"}


def test_a_wandb_file_that_is_damaged_is_told_and_one_that_was_cut_off_is_read(wandb_run, tmp_path):
    (path,) = wandb_run.glob("wandb/offline-run-*/*.wandb")
    content = bytearray(path.read_bytes())
    (tmp_path / "r.wandb").write_bytes(content[:60_000])
    assert last(read(tmp_path, "r.wandb"))["eval/web"] == 3.0
    content[300] ^= 1
    (tmp_path / "r.wandb").write_bytes(content)
    with pytest.raises(
        RunError, match=r"r.wandb: is not a file of a W&B run: the checksum at byte"
    ):
        read(tmp_path, "r.wandb")


MLFLOW = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("e")
with mlflow.start_run():
    mlflow.log_param("seed", 5)
    mlflow.log_param("lr", 0.1)
    for step in range(3):
        mlflow.log_metric("eval/web", 3 - step / 10, step=step)
    mlflow.log_metric("bad", float("nan"))
    mlflow.log_metric("code", 2.5)
"""


@pytest.mark.parametrize("form", ["files", "database"])
def test_an_mlflow_run_is_read_from_files_and_from_a_database(tmp_path, form, request):
    if form == "database":
        database = request.getfixturevalue("empty_database")
        (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    uri = {"files": f"file:{tmp_path}/mlruns", "database": f"sqlite:///{tmp_path}/mlflow.db"}[form]
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"}
    words = [sys.executable, "-c", MLFLOW, uri]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True, timeout=180)
    results = {"files": ["mlruns", "mlruns/*/*/"], "database": ["mlflow.db", "."]}[form]
    for result in results:
        values = read(tmp_path, result)
        points = values.series["eval/web"]
        assert [(point.step, point.value) for point in points] == [(0, 3.0), (1, 2.9), (2, 2.8)]
        assert last(values)["code"] == 2.5
        assert math.isnan(last(values)["bad"])
        assert values.said == {"seed": "5"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", "[1]", "m.json: expected names with values, got list"),
        ("m.json", "[" * 100_000, "m.json: is nested too deeply"),
        ("m.json", b"\xff", "m.json: byte 0 is not UTF-8"),
        ("m.jsonl", '{"a": 1}\n{"a":', r"m.jsonl:2: cannot be read: Expecting value"),
        ("m.jsonl", "3\n", "m.jsonl:1: expected names with values, got '3'"),
        ("m.csv", "a,b\n1,2,3\n", "m.csv:2: has more cells than the header"),
        ("m.db", "no database at all", "m.db: is not a database of MLflow: file is not a database"),
        ("m.wandb", "nothing of theirs", "m.wandb: is not a file of a W&B run: it does not begin"),
        ("events.out.tfevents.1", "nothing of theirs", "is not an event file of TensorBoard"),
        (
            "m.yaml",
            "a: 1",
            "m.yaml: is not a kind of result that can be read: JSON, JSONL, CSV, event",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_fault(tmp_path, name, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RunError, match=message):
        read(tmp_path, name)


def test_a_folder_without_a_result_is_named(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="out: holds no result that can be read as a folder"):
        read(tmp_path, "out")
