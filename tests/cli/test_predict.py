"""How weights are given to `mixopt predict`, and what is refused."""

from __future__ import annotations

import pytest

from mixopt.cli.proposals import _mixture, _weights
from mixopt.errors import MixoptError


def test_weights_are_read_by_domain_whatever_marks_a_name_has():
    assert _weights("web=.5, a=b=.5") == {"web": 0.5, "a=b": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web=.5,code=.4", "--weights: the sum is 0.9, not 1; divide each by 0.9"),
        ("web", "--weights web: expected DOMAIN=SHARE, such as web=.5"),
        ("web=half", "--weights web=half: expected DOMAIN=SHARE, such as web=.5"),
        ("web=-1,code=2", "--weights web=-1: expected DOMAIN=SHARE, such as web=.5"),
        ("web=.5,web=.5", "--weights: domain 'web' is given twice"),
        ("web=0", "--weights: the sum is 0, not 1"),
    ],
)
def test_weights_that_cannot_be_right_are_one_line(text, message):
    with pytest.raises(MixoptError) as error:
        _weights(text)
    assert str(error.value) == message


def test_a_file_of_weights_that_do_not_add_up_is_named_without_options_that_it_has_not(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("{web: 0.5, code: 0.4}")
    with pytest.raises(MixoptError) as error:
        _mixture(path, None)
    assert str(error.value) == f"{path}: weights add up to 0.9, not 1: divide each by 0.9"


@pytest.mark.parametrize("given", [(None, None), ("m.yaml", "web=1")])
def test_either_a_file_or_weights_are_given(given):
    with pytest.raises(MixoptError, match="predict: give either --mixture FILE or --weights A"):
        _mixture(*given)
