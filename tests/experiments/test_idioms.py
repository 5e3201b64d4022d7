"""The check of idioms counts each of them, and nothing in comments, docstrings or strings."""

import pytest
from places import experiment

idioms = experiment("checks", "idioms")


@pytest.mark.parametrize(
    ("text", "idiom"),
    [
        ("a, b = x, y", "tuple assignments"),
        ("a = x if c else y", "conditional expressions"),
        ("a = [f(n) for n in names]", "comprehensions"),
        ("a = f(*names)", "stars"),
        ("a = [f(n if n else 0) for n in names]", "nested"),
        ("def f():\n    pass\n\n\nLIMIT = 3", "late constants"),
    ],
)
def test_an_idiom_is_counted_once(text, idiom):
    assert idioms.counted(text)[idiom] == 1


def test_plain_statements_and_text_are_not_counted():
    text = '"""Doc: a, b = x, y."""\nLIMIT = 3  # x if c else y\nlow, high = interval\n'
    counts = idioms.counted(text)
    assert +counts == {"tokens": 8}
