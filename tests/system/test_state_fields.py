"""A field of a state is what it must be, or one line names it and its value."""

import numpy as np
import pytest
from refusals import refuses

from mixopt.errors import SamplerError
from mixopt.system import StateFields, shown_value


def fields(**content):
    return StateFields(content, "the state", SamplerError)


def test_what_is_there_is_returned_and_an_array_in_the_requested_shape():
    good = fields(a=3, b=0.5, c="x", d=True, e=[1, 2], f=[0.5, 2], g=None, h={"i": 1}, j=["k"])
    assert (good.whole("a"), good.number("b"), good.text("c"), good.flag("d")) == (
        3,
        0.5,
        "x",
        True,
    )
    assert (good.wholes("e", 2), good.numbers("f"), good.texts("j")) == ([1, 2], [0.5, 2.0], ["k"])
    assert good.maybe("g", good.whole) is None
    assert good.maybe("a", good.whole) == 3
    assert good.part("h").whole("i") == 1
    assert good.whole("a") == fields(a=np.int64(3)).whole("a")
    assert fields(a=[[1, 2], [3, 4]]).array("a", (2, 2)).tolist() == [[1, 2], [3, 4]]
    assert fields(a=np.array([1], np.int32)).array("a", (1,), kind=int).dtype == np.int64


@pytest.mark.parametrize(
    ("take", "value", "message"),
    [
        ("whole", True, "the state: a: True is not a whole number from 0 to 9007199254740992"),
        ("whole", 10**5000, "a: a number of 16610 bits is not a whole number"),
        ("number", float("nan"), "a: nan is not a finite number"),
        ("number", 10**400, "a: a number of 1329 bits is not a finite number"),
        ("text", ["b"], "a: a list is not text"),
        ("part", [], "a: a list is not a mapping"),
        ("texts", ["b", 1], "a: a list is not a list of names"),
        ("numbers", [1, None], "a.1: None is not a finite number"),
        ("array", [1.0, float("inf")], "a: a list is not finite numbers"),
        ("array", [[1.0, 2.0]], r"a: has shape \(1, 2\), not \(2,\)"),
        ("array", [1.0, [2.0]], "a: a list is not an array of numbers"),
        ("array", [True, False], "a: a list is not an array of numbers"),
    ],
    ids=shown_value,
)
def test_what_is_wrong_is_one_line(take, value, message):
    shape = [(2,)] if take == "array" else []
    refuses(SamplerError, message, getattr(fields(a=value), take), "a", *shape)


def test_an_array_of_whole_numbers_is_from_a_least_one_to_64_bits():
    for values, message in (
        ([-1, 0], "not finite numbers >= 0"),
        ([2**63, 0], "not an array of whole"),
        ([0.5, 1], "not an array of whole"),
    ):
        refuses(SamplerError, message, fields(a=values).array, "a", (2,), 0, kind=int)


def test_a_state_is_a_mapping_of_names_and_its_format_is_checked():
    for content, message in (([1], "a list is not a mapping"), ({1: 2}, "its keys must be names")):
        with pytest.raises(SamplerError, match=f"^the state: {message}"):
            StateFields(content, "the state", SamplerError)
    with pytest.raises(SamplerError, match="is not a state of format 'x/1': it has no format"):
        fields().check_format("x/1")
    with pytest.raises(SamplerError, match="is not a state of format 'x/1': format 7"):
        fields(format=7).check_format("x/1")
    fields(format="x/1").check_format("x/1")
