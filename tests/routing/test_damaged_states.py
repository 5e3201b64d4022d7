"""Counts and probes of experts that are damaged are refused in one line with the field."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from made_experts import counted, probed

from mixopt.errors import RoutingError
from mixopt.routing import load_probe, load_state, save_probe, saved_domains, saved_state

KEPT = counted(np.full((2, 2, 4), 6))
PROBE = probed(np.arange(12).reshape(1, 2, 6) % 4, np.array([0, 1]))


def state():
    return saved_state({"total": KEPT})


@pytest.mark.parametrize("field", sorted(state()))
def test_a_missing_tensor_is_named(field):
    broken = {name: value for name, value in state().items() if name != field}
    with pytest.raises(RoutingError, match="total" if "/" in field else "not a state"):
        load_state(broken, KEPT)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("total/dropped_D", torch.zeros(3, dtype=torch.int64), r"shape \(3,\), not \(4,\)"),
        ("total/dropped_D", torch.full((4,), -1), "not whole numbers >= 0"),
        ("total/dropped_D", torch.zeros(4), "not an array of whole numbers"),
        ("total/entropy_D", torch.full((4,), torch.nan), "not finite numbers"),
        ("total/entropy_D", [1, 2], "a list is not a tensor"),
        ("about", "[", "about: cannot be read"),
        ("about", "[]", "about: a list is not a mapping"),
        ("about", 7, "about: 7 is not text"),
        ("about", json.dumps({"domains": ["d0", "d1"]}), "layers: is missing"),
        ("about", json.dumps({"domains": ["d0", "d1"], "layers": [[0, 4]]}), "layers.0: .*2 value"),
        ("about", "[" * 100_000, "about: is nested too deeply"),
    ],
)
def test_a_damaged_field_is_one_line(field, value, message):
    with pytest.raises(RoutingError, match=message) as caught:
        load_state({**state(), field: value}, KEPT)
    assert "\n" not in str(caught.value)


def test_domains_that_are_no_names_are_refused():
    with pytest.raises(RoutingError, match="domains: a list is not a list of names"):
        saved_domains({"about": json.dumps({"domains": [1]})})


@pytest.fixture
def file(tmp_path):
    save_probe(PROBE, tmp_path / "probe.npz")
    return tmp_path / "probe.npz"


def rewritten(file, **arrays):
    with np.load(file) as before:
        np.savez_compressed(file, **{name: before[name] for name in before} | arrays)


def test_a_probe_is_read_as_it_was_saved(file):
    assert np.array_equal(load_probe(file).layers[0].ids_TK, PROBE.layers[0].ids_TK)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"domain_U": np.array([0, 7])}, "probe.npz: .*domain_U: there are 2 domains"),
        ({"tokens_U": np.array([1])}, r"tokens_U: has shape \(1,\), not \(2,\)"),
        ({"0/ids_TK": np.full((12, 1), 9)}, "0/ids_TK: there are 4 experts"),
        ({"0/counts_UE": np.full((2, 4), -1)}, "0/counts_UE: .*not whole numbers >= 0"),
        ({"about": np.frombuffer(b"{}", np.uint8)}, "about: domains: is missing"),
        ({"about": np.array([999])}, "about: is not text"),
    ],
)
def test_a_damaged_probe_names_the_file_and_the_field(arrays, message, file):
    rewritten(file, **arrays)
    with pytest.raises(RoutingError, match=message):
        load_probe(file)


def test_any_flipped_byte_of_a_probe_is_a_probe_or_one_line(file):
    whole = file.read_bytes()
    for place in range(0, len(whole), 11):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            load_probe(file)
        except RoutingError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_a_probe_that_is_cut_off_is_one_line(file):
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RoutingError, match="probe.npz: cannot be read"):
        load_probe(file)
