"""From names in a result to losses by domain, in both units, with the curve that leads there."""

import math

import pytest
from hypothesis import given, strategies as st
from mixopt_proxies.command.result_file import Point, TrainerLog, divergence, losses_of

from mixopt.errors import RunError


def losses(corpus, values, names=None, *, unit="nats_per_token", tokens=1_000):
    log = values if isinstance(values, TrainerLog) else TrainerLog()
    if log is not values:
        log.add_row(values)
    return losses_of(log, names, corpus, tokens=tokens, unit=unit, result="m.json")


def test_a_pattern_has_the_domains_name_in_it(corpus):
    values = {f"eval/{name}/loss": n for n, name in enumerate(("code", "manual", "other_code"))}
    found, _ = losses(corpus, values, "eval/{domain}/loss")
    assert found.nats_per_token == {"code": 0, "manual": 1, "other_code": 2}


def test_several_values_of_a_glob_are_their_mean(corpus):
    values = {"manual": 2, "other_code": 3, "mmlu_law": 1.0, "mmlu_physics": 2.0, "mmlu": 9.0}
    found, _ = losses(corpus, values, {"code": "mmlu_*"})
    assert found.nats_per_token["code"] == 1.5


def test_a_missing_loss_names_the_nearest(corpus):
    values = {"eval/code/nll": 1, "eval/manual/loss": 1, "eval/other_code/loss": 1, "lr": 1}
    with pytest.raises(RunError) as told:
        losses(corpus, values, "eval/{domain}/loss")
    assert str(told.value) == (
        "m.json: has no loss of 'code': no 'eval/code/loss'; the nearest are 'eval/code/nll',"
        " 'eval/other_code/loss', 'eval/manual/loss'; see proxy.losses"
    )
    with pytest.raises(RunError, match="it has no numbers at all"):
        losses(corpus, {"a": "text"})


@given(st.floats(0.1, 20))
def test_each_unit_gives_the_other(corpus, value):
    values = dict.fromkeys(("code", "manual", "other_code"), value)
    of_nats, _ = losses(corpus, values)
    of_bits, _ = losses(corpus, of_nats.bits_per_byte, unit="bits_per_byte")
    assert of_bits.nats_per_token == pytest.approx(of_nats.nats_per_token)
    shards = corpus.evaluation[0].validation
    wanted = value * shards.tokens / shards.bytes / math.log(2)
    assert of_nats.bits_per_byte["code"] == pytest.approx(wanted)


def series(**lines):
    return TrainerLog({name: [Point(*p) for p in line] for name, line in lines.items()})


def test_steps_become_tokens_where_all_domains_have_a_loss(corpus):
    values = series(
        code=[(9, 0), (4, 50), (3, 75), (2, 100)],
        manual=[(9, 0), (4, 50), (2, 100)],
        other_code=[(9, 0), (4, 50), (2, 100)],
    )
    final, curve = losses(corpus, values)
    assert [(point.tokens, point.nats_per_token["code"]) for point in curve] == [
        (500, 4),
        (1000, 2),
    ]
    assert curve[-1] is final


def test_tokens_win_over_steps_and_no_number_stands_in_a_curve(corpus):
    line = [(4, 1, 100), (math.nan, 2, 200), (3, 3, 300), (2, 4, 400)]
    final, curve = losses(corpus, series(code=line, manual=line, other_code=line), tokens=400)
    assert [point.tokens for point in curve] == [100, 300, 400]
    assert final.nats_per_token["code"] == 2


@pytest.mark.parametrize("value", [math.nan, 2e100])
def test_a_last_loss_that_is_no_number_is_a_divergence(corpus, value):
    final, _ = losses(corpus, {"code": 1.0, "manual": value, "other_code": 1.0})
    assert divergence(final, "m.json") == f"m.json: the loss of 'manual' is {value:g}"
    assert divergence(losses(corpus, {"code": 1, "manual": 1, "other_code": 1})[0], "") is None


def test_values_named_as_columns_of_tasks_are_what_the_tasks_measure(corpus):
    values = dict.fromkeys(("code", "manual", "other_code"), 1.0)
    (bits,) = corpus.task_columns
    assert losses(corpus, values)[0].tasks == {}
    asked = {**values, bits: 2.5, "task/other/accuracy": 1.0}
    found, curve = losses(corpus, asked)
    assert found.tasks == {bits: 2.5}
    assert found.nats_per_token.keys() == {"code", "manual", "other_code"}
    assert curve[-1].tasks == found.tasks
