"""Result files of trainers: formats, damaged files, and losses by domain in both units."""

import json
import math
import os
from itertools import starmap

import pytest
from hypothesis import given, strategies as st
from mixopt_proxies.command.command_proxy import result_file
from mixopt_proxies.command.result_file import Point, TrainerLog, divergence, losses_of, read_log
from refusals import refuses

from mixopt.errors import RunError

DOMAINS = ("code", "manual", "other_code")


def read(folder, result):
    return read_log(result_file(folder, result))


def last(values):
    return {name: points[-1].value for name, points in values.series.items()}


def test_json_is_flattened_and_keeps_what_is_no_number(tmp_path):
    content = {"loss": {"web": 3.5, "code": math.nan}, "n": 2, "text": "x", "ok": True, "no": None}
    content |= {"inf": "Infinity", "trial": "t1"}
    (tmp_path / "m.json").write_text(json.dumps(content))
    values = read(tmp_path, "m.json")
    expected = {"loss.web": 3.5, "loss.code": math.nan, "n": 2.0, "inf": math.inf}
    assert last(values) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert values.about == {"trial": "t1"}


def test_the_log_history_of_a_hugging_face_trainer_is_a_series(tmp_path):
    evaluated = [{"eval_web_loss": 3.0, "step": 10}, {"eval_web_loss": 2.5, "step": 20}]
    content = {"global_step": 20, "log_history": [{"loss": 4.0, "step": 10}, *evaluated]}
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
        ("m.json", b"[1]", "m.json: expected names with values, got '1'"),
        ("m.json", b"\xff", "m.json: byte 0 is not UTF-8"),
        ("m.jsonl", b'{"a": 1}\n{"a":', r"m.jsonl:2: cannot be read: Expecting value"),
        ("m.csv", b"a,b\n1,2,3\n", "m.csv:2: has more cells than the header"),
        ("m.yaml", b"a: 1", "m.yaml: is not a JSON, JSONL or CSV file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_fault(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refuses(RunError, message, read, tmp_path, name)


# By domain, with the curve that leads there ---------------------------------------------------


def losses(corpus, values, names=None, *, unit="nats_per_token", tokens=1_000):
    log = values if isinstance(values, TrainerLog) else TrainerLog()
    if log is not values:
        log.add_row(values)
    return losses_of(log, names, corpus, tokens=tokens, unit=unit, result="m.json")


def test_a_pattern_has_the_domains_name_in_it_and_values_of_a_glob_are_their_mean(corpus):
    values = {f"eval/{name}/loss": n for n, name in enumerate(DOMAINS)}
    found, _ = losses(corpus, values, "eval/{domain}/loss")
    assert found.nats_per_token == {"code": 0, "manual": 1, "other_code": 2}
    values = {"manual": 2, "other_code": 3, "mmlu_law": 1.0, "mmlu_physics": 2.0, "mmlu": 9.0}
    found, _ = losses(corpus, values, {"code": "mmlu_*"})
    assert found.nats_per_token["code"] == 1.5


def test_a_missing_loss_names_the_nearest(corpus):
    values = {"eval/code/nll": 1, "eval/manual/loss": 1, "eval/other_code/loss": 1, "lr": 1}
    with pytest.raises(RunError) as error:
        losses(corpus, values, "eval/{domain}/loss")
    assert str(error.value) == (
        "m.json: has no loss of 'code': no 'eval/code/loss'; the nearest are"
        " 'eval/other_code/loss', 'eval/code/nll'; see proxy.losses"
    )
    refuses(RunError, "it has no numbers", losses, corpus, {"a": "text"})


@given(st.floats(0.1, 20))
def test_each_unit_gives_the_other(corpus, value):
    values = dict.fromkeys(DOMAINS, value)
    of_nats, _ = losses(corpus, values)
    of_bits, _ = losses(corpus, of_nats.bits_per_byte, unit="bits_per_byte")
    assert of_bits.nats_per_token == pytest.approx(of_nats.nats_per_token)
    shards = corpus.evaluation[0].validation
    wanted = value * shards.tokens / shards.bytes / math.log(2)
    assert of_nats.bits_per_byte["code"] == pytest.approx(wanted)


def series(line, **others):
    return TrainerLog({n: list(starmap(Point, others.get(n, line))) for n in DOMAINS})


def test_a_curve_is_by_tokens_or_by_steps_where_all_domains_have_a_finite_loss(corpus):
    values = series([(9, 0), (4, 50), (2, 100)], code=[(9, 0), (4, 50), (3, 75), (2, 100)])
    final, curve = losses(corpus, values)
    assert [(item.tokens, item.nats_per_token["code"]) for item in curve] == [(500, 4), (1000, 2)]
    assert curve[-1] is final
    values = series([(4, 1, 1), (math.nan, 2, 200), (3, 3, 300), (2, 4, 400)])
    final, curve = losses(corpus, values, tokens=400)
    assert [point.tokens for point in curve] == [1, 300, 400]
    assert final.nats_per_token["code"] == 2


@pytest.mark.parametrize(
    ("value", "error_text"),
    [
        (math.nan, "m.json: the loss of 'manual' is nan"),
        (2e100, "m.json: the loss of 'manual' is 2e+100"),
        (1.0, None),
    ],
)
def test_a_last_loss_that_is_no_number_is_a_divergence(corpus, value, error_text):
    final, _ = losses(corpus, dict.fromkeys(DOMAINS, 1.0) | {"manual": value})
    assert divergence(final, "m.json") == error_text


def test_values_named_as_columns_of_tasks_are_what_the_tasks_measure(corpus):
    values = dict.fromkeys(DOMAINS, 1.0)
    (bits,) = corpus.task_columns
    assert losses(corpus, values)[0].tasks == {}
    found, curve = losses(corpus, {**values, bits: 2.5, "task/other/accuracy": 1.0})
    assert found.tasks == {bits: 2.5}
    assert found.nats_per_token.keys() == {"code", "manual", "other_code"}
    assert curve[-1].tasks == found.tasks
