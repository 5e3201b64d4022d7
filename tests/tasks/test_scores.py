"""Metrics of tasks, against numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixopt.corpus.tokenizer import ByteTokenizer
from mixopt.tasks import Item, encode_task, item_scores, task_metrics

LN2 = math.log(2)
TWO = [
    Item("1", ("Q",) * 2, (" aé", " bcd"), 0),
    Item("2", ("Q",) * 3, (" x", " yy", " zzz"), 2, weight=3.0),
]
LOG_P = np.array([-8.0, -4.0, -3.0, -4.0, -1.0])


def made(metrics, normalisation="none", items=TWO):
    return encode_task("t", items, metrics, normalisation, ByteTokenizer())


def softmax(*values):
    raised = np.exp(values)
    return raised / raised.sum()


def test_bits_per_byte_is_the_mean_over_items_of_the_gold_answer():
    scores = item_scores(made(["bits_per_byte", "accuracy"]), LOG_P)
    assert scores["bits_per_byte"] == pytest.approx([8 / (4 * LN2), 1 / (4 * LN2)])
    found = task_metrics(made(["bits_per_byte"]), np.array([-8.0, -1.0]))
    assert found == {"task/t/bits_per_byte": pytest.approx((8 + 3 * 1) / 4 / (4 * LN2))}


@pytest.mark.parametrize(
    ("normalisation", "compared"),
    [
        ("none", [(-8, -4), (-3, -4, -1)]),
        ("characters", [(-8 / 3, -4 / 4), (-3 / 2, -4 / 3, -1 / 4)]),
        ("bytes", [(-8 / 4, -4 / 4), (-3 / 2, -4 / 3, -1 / 4)]),
    ],
)
def test_choices_are_compared_by_what_the_normalisation_says(normalisation, compared):
    scores = item_scores(made(["choice_probability"], normalisation), LOG_P)
    first, second = softmax(*compared[0])[0], softmax(*compared[1])[2]
    assert scores["choice_probability"] == pytest.approx([first, second])
    logs = item_scores(made(["choice_log_probability"], normalisation), LOG_P)
    assert logs["choice_log_probability"] == pytest.approx(np.log([first, second]))


def test_accuracy_is_whether_the_gold_answer_is_likeliest():
    found = task_metrics(made(["accuracy"]), LOG_P)
    assert found == {"task/t/accuracy": pytest.approx(3 / 4)}


def test_unconditional_takes_off_what_an_answer_is_without_the_question():
    items = [Item("1", ("Q",) * 2, (" a", " b"), 0, unconditional="A:")]
    task = made(["choice_probability"], "unconditional", items)
    scores = item_scores(task, np.array([-8.0, -4.0, -9.0, -2.0]))
    assert scores["choice_probability"] == pytest.approx([softmax(1, -2)[0]])


def test_a_sum_that_underflows_is_still_a_finite_number():
    scores = item_scores(made(["choice_log_probability", "choice_probability"]), LOG_P * 1e4)
    assert np.isfinite(scores["choice_log_probability"]).all()
    assert scores["choice_log_probability"][0] == pytest.approx(-4e4)
