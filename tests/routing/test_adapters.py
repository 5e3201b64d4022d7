"""What an adapter or a tap says of a router can be, or is refused in one line."""

import pytest

from mixopt.errors import RoutingError
from mixopt.routing import RouterAdapter, RouterTap


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
