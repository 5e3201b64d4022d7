"""What an adapter or a tap says of a router can be, or is refused in one line."""

import pytest
import torch
from torch import nn

from mixopt.errors import RoutingError
from mixopt.routing import RouterAdapter, RouterStats, RouterTap


def read(output):
    return output[1], output[0]


def made(kind, **given):
    """Make a tap or an adapter of four experts."""
    if kind is RouterTap:
        return RouterTap(**{"experts": 4, "top_k": 2} | given)
    return RouterAdapter(**{"router": "OwnRouter", "read": read} | given)


BOTH = pytest.mark.parametrize("kind", [RouterTap, RouterAdapter])


@BOTH
@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ("sigmiod", "scores 'sigmiod' is unknown; did you mean 'sigmoid'?"),
        ("top", "scores 'top' is unknown; known: sigmoid, softmax, sqrt_softplus"),
        (None, "scores None is unknown; known: sigmoid, softmax, sqrt_softplus"),
        (["sigmoid"], "scores a list is unknown; "),
    ],
)
def test_a_word_for_the_scores_that_is_none_is_refused(kind, scores, said):
    with pytest.raises(RoutingError) as caught:
        made(kind, scores=scores)
    assert str(caught.value).startswith(f"{kind.__name__}: {said}")
    assert "\n" not in str(caught.value)


@BOTH
@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "sqrt_softplus"])
def test_each_known_word_for_the_scores_is_kept(kind, scores):
    assert made(kind, scores=scores).scores == scores


@BOTH
@pytest.mark.parametrize("value", ["a", True, 0, -1, 1.5, [1]])
@pytest.mark.parametrize("name", ["experts", "top_k", "span", "runs"])
def test_a_number_that_is_none_is_one_line(kind, name, value):
    if kind is RouterAdapter and name in {"experts", "top_k"} and value == "a":
        return  # the attribute that has it
    with pytest.raises(RoutingError, match=f"^{kind.__name__}: {name} .*; give .*, 1 or more$"):
        made(kind, **{name: value})


@BOTH
def test_whether_choices_are_dropped_is_true_or_false(kind):
    with pytest.raises(RoutingError, match="drops 'no'; give True or False"):
        made(kind, drops="no")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"router": 3}, "router 3; give a class, or the end of its name"),
        ({"router": ""}, "router ''; give a class, or the end of its name"),
        ({"read": "ids"}, "read 'ids'; give lambda output: "),
        ({"experts": None}, "experts None; give the attribute of the router that has it"),
        ({"experts": ""}, "experts ''; give the attribute of the router that has it"),
    ],
)
def test_what_an_adapter_says_and_cannot_be_is_one_line(given, said):
    with pytest.raises(RoutingError) as caught:
        made(RouterAdapter, **given)
    assert str(caught.value).startswith(f"RouterAdapter: {said}")


def divides(output):
    return 1 / 0


def asserts(output):
    assert output is None


def fails(output):
    raise RuntimeError("first\nsecond")


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (divides, "cannot be read: ZeroDivisionError: division by zero; give"),
        (asserts, "cannot be read: AssertionError"),
        (fails, "cannot be read: RuntimeError: first; give"),
        (lambda output: output["ids"], "cannot be read: "),
        (lambda output: None, "cannot be read: TypeError: "),
    ],
)
def test_whatever_a_read_raises_is_one_line_with_the_router(read, said):
    adapter = RouterAdapter("Linear", read=read, experts=2, top_k=1)
    linear = nn.Linear(2, 2)
    stats = RouterStats.attach(linear, ["web"], adapters=[adapter])
    with (
        pytest.raises(RoutingError) as caught,
        stats.domains(torch.zeros(1, 2, dtype=torch.long)),
    ):
        linear(torch.zeros(2, 2))
    assert f"router '': what Linear returns {said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lack_of_memory_in_a_read_stays_one():
    def read(output):
        raise torch.OutOfMemoryError("no memory")

    linear = nn.Linear(2, 2)
    adapter = RouterAdapter("Linear", read=read, experts=2, top_k=1)
    stats = RouterStats.attach(linear, ["web"], adapters=[adapter])
    with (
        pytest.raises(torch.OutOfMemoryError),
        stats.domains(torch.zeros(1, 2, dtype=torch.long)),
    ):
        linear(torch.zeros(2, 2))
