"""One difference, above 0 better, in every unit and file; files of other versions are refused."""

import numpy as np
import pytest
import yaml
from made_proposal import made_proposal, made_recommendation

from mixopt.difference import (
    Difference,
    ends_text,
    shared_count,
    signed_text,
    size_text,
    unit_text,
    value_text,
)
from mixopt.errors import MixtureError
from mixopt.proposals import Proposal, Recommendation
from mixopt.system import StateFields, sealed, write_text

UNIT = "bits_per_byte"


@pytest.mark.parametrize(
    ("unit", "value", "size", "ends", "gain", "words"),
    [
        ("bits_per_byte", "0.5043", "0.5043", "0.1000 to 0.2000", "+0.5043", "bits per byte"),
        ("metric_units", "0.5043", "0.5043", "0.1000 to 0.2000", "+0.5043", "units of the m"),
        ("metric_deviations", "0.5043", "0.5043", "0.1000 to 0.2000", "+0.5043", "standard d"),
        ("right_answers", "50.43", "50.43", "10.00 to 20.00", "+50.43", "points"),
    ],
)
def test_metrics_are_shown_as_they_are_and_shares_of_right_answers_in_points(
    unit, value, size, ends, gain, words
):
    assert value_text(0.5043, unit) == value
    assert size_text(0.5043, unit) == size
    assert ends_text(0.1, 0.2, unit) == ends
    assert signed_text(0.5043, unit) == gain
    assert unit_text(unit).startswith(words)
    assert not value_text(-0.0, unit).startswith("-")


def test_a_difference_of_pairs_has_their_mean_student_s_interval_and_their_number():
    found = Difference.from_pairs(np.array([0.3, 0.4, 0.2]), UNIT, tokens=10)
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert [found.mean, found.low, found.high] == pytest.approx([0.3, 0.3 - half, 0.3 + half])
    assert (found.pairs, found.level, found.tokens, found.parameters) == (3, 0.95, 10, None)
    assert found.verdict == "better"
    assert found.text == "+0.3000 bits per byte (95% +0.0516 to +0.5484)"
    wider = Difference.from_pairs(np.array([0.3, 0.4, 0.2]), UNIT, nominal=0.99)
    assert wider.level == 0.95
    assert wider.low < 0 < wider.high


def test_a_cost_is_a_difference_below_0_and_a_mixture_does_not_differ_from_itself():
    cost = Difference.around(-0.0273, 0.01, "right_answers")
    assert (cost.verdict, cost.level, cost.pairs) == ("worse", 0.9, None)
    assert cost.text == "\N{MINUS SIGN}2.73 points (90% \N{MINUS SIGN}3.73 to \N{MINUS SIGN}1.73)"
    assert cost.half_text == "1.00"
    assert Difference.around(0.0, 0.0, UNIT, is_same=True).verdict == "same mixture"
    assert Difference.around(1 / 3, 0.0, UNIT).mean == 0.333333


def test_a_difference_is_read_as_it_was_written():
    for found in (
        Difference.from_pairs(np.array([0.5, 0.25]), UNIT, tokens=10, parameters=7),
        Difference.around(0.5, 0.25, "right_answers", is_same=True),
    ):
        fields = StateFields(found.to_json(), "file", MixtureError)
        assert Difference.read(fields) == found


def test_runs_share_a_size_only_if_all_have_it():
    assert shared_count([5, 5]) == 5
    assert shared_count([5, 6]) is None
    assert shared_count([5, None]) is None
    assert shared_count([]) is None


@pytest.mark.parametrize(
    ("mixture", "renamed", "step"),
    [
        (made_proposal(), ("gains", "gain"), "propose"),
        (made_recommendation(), ("other_losses", "costs"), "validate"),
    ],
)
def test_a_file_with_differences_of_another_version_names_the_step_to_run_again(
    mixture, renamed, step, tmp_path
):
    now, before = renamed
    content = mixture.to_json()
    content[before] = content.pop(now)
    path = tmp_path / "mixture.yaml"
    kind = Proposal if step == "propose" else Recommendation
    write_text(path, yaml.safe_dump(sealed(content), sort_keys=False))
    with pytest.raises(MixtureError) as error:
        kind.from_file(path)
    assert str(error.value) == (
        f"{path}: has no {now!r}, so another version of mixopt wrote it; run the step again:"
        f" mixopt run CONFIG --from {step}"
    )
