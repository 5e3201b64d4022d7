"""What the experts of a trial were given is kept in its file, number for number."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mixopt.mixture import Mixture
from mixopt.routing import (
    Assignments,
    ExpertCounts,
    LayerInformation,
    LayerProbe,
    ProbeResult,
    layer_information,
)
from mixopt.routing.assignments import ARRAYS, no_layer
from mixopt.trials import Losses, Trial, TrialFolder, TrialResult, result_to_json

DOMAINS = ("web", "code", "wiki")
TRIALS = [Trial("a", Mixture({"web": 0.5, "code": 0.5}), 0)]
LOSSES = Losses(100, {"web": 1.0}, {"web": 1.0})
DENSE = TrialResult("a", "finished", 100, 10, 0.5, LOSSES, (LOSSES,))


def assignments(seed, experts=5):
    rng = np.random.default_rng(seed)
    layers = []
    for number in (0, 2):
        empty = no_layer(number, experts, 2, len(DOMAINS))
        arrays = {name: 1e6 * rng.random(array.shape) for name, array in empty.arrays().items()}
        arrays["counts_HDE"] = rng.integers(2**62, size=(2, len(DOMAINS), experts))
        arrays["dropped_D"] = rng.integers(9, size=len(DOMAINS))
        arrays["unused_D"] = rng.integers(9, size=len(DOMAINS))
        layers.append(replace(empty, **arrays))
    return Assignments(DOMAINS, tuple(layers))


COUNTS = ExpertCounts(
    assignments(1),
    assignments(2),
    (LayerInformation(0, 0.3, 0.01, 0.29, 0.25), LayerInformation(2, 0.1, 0.1, 0.0, None)),
)


def same(one, other):
    assert one.domains == other.domains
    assert one.sizes == other.sizes
    for ours, theirs in zip(one.layers, other.layers, strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
            assert getattr(ours, name).dtype == getattr(theirs, name).dtype


def test_a_trials_file_keeps_what_its_experts_were_given(tmp_path):
    TrialFolder(tmp_path).write(0, TRIALS, [replace(DENSE, experts=COUNTS)])
    (found,) = TrialFolder(tmp_path).results(TRIALS).values()
    assert replace(found, experts=None) == DENSE
    same(found.experts.train, COUNTS.train)
    same(found.experts.held_out, COUNTS.held_out)
    assert found.experts.information == COUNTS.information


def test_the_file_has_a_line_an_array_and_not_one_a_number(tmp_path):
    folder = TrialFolder(tmp_path)
    folder.write(0, TRIALS, [replace(DENSE, experts=COUNTS)])
    few = len((tmp_path / "a.json").read_text().splitlines())
    more = ExpertCounts(assignments(3, experts=64), COUNTS.held_out, COUNTS.information)
    folder.write(0, TRIALS, [replace(DENSE, experts=more)])
    assert len((tmp_path / "a.json").read_text().splitlines()) == few


def test_a_trial_without_experts_has_the_file_that_it_always_had(tmp_path):
    assert "experts" not in result_to_json(DENSE)
    TrialFolder(tmp_path).write(0, TRIALS, [DENSE])
    assert "experts" not in json.loads((tmp_path / "a.json").read_text())["result"]
    assert TrialFolder(tmp_path).results(TRIALS) == {"a": DENSE}


def probe(domains, counts_UE, domain_U):
    layer = LayerProbe(4, 2, counts_UE, np.zeros((0, 2), np.int64), np.full(len(domains), np.nan))
    tokens_U = counts_UE.sum(1) // 2
    return ProbeResult(domains, domain_U, tokens_U, np.zeros(0, np.int64), (layer,))


def test_experts_that_tell_the_domain_have_a_specialisation_of_one_less_chance():
    domain_U = np.arange(400) % 2
    counts_UE = np.zeros((400, 4), np.int64)
    counts_UE[domain_U == 0, :2] = counts_UE[domain_U == 1, 2:] = 50
    (found,) = layer_information(probe(("web", "code"), counts_UE, domain_U))
    assert found.layer == 4
    assert found.information == pytest.approx(np.log(2))
    assert found.corrected == found.information - found.chance
    assert found.specialisation == pytest.approx(found.corrected / np.log(2))
    assert found.specialisation > 0.99


def test_one_domain_alone_has_no_specialisation():
    counts_UE = np.full((8, 4), 3, np.int64)
    (found,) = layer_information(probe(("web",), counts_UE, np.zeros(8, np.int64)))
    assert found.specialisation is None
