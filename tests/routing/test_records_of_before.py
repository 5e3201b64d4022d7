"""What was written when a layer had one router, every token K experts and no weights is read.

The files are made by hand, field by field as they were written then.
"""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from routing_job import EXPERTS, TOP_K, tiny

from mixopt.pretraining.expert_watch import _read
from mixopt.reporting import experts
from mixopt.routing import ExpertRecord, RouterStats, counts_from_json
from mixopt.routing.assignments import no_layer, nothing
from mixopt.trials import TrialExperts

DOMAINS = ("web", "code", "books")
LAYERS = (1, 2)
SUMS = ("entropy_D", "squared_logsumexp_D", "chosen_D")


def layer_of(number):
    rng = np.random.default_rng(number)
    drawn = {name: rng.random(len(DOMAINS)) for name in SUMS}
    return replace(
        no_layer(number, EXPERTS, TOP_K, len(DOMAINS)),
        counts_HDE=2 * rng.integers(500, 900, (2, len(DOMAINS), EXPERTS)),
        dropped_D=np.array([0, 2, 4]),
        probability_DE=rng.random((len(DOMAINS), EXPERTS)),
        **drawn,
    )


EXPECTED = replace(
    nothing(DOMAINS, {str(n): (EXPERTS, TOP_K) for n in LAYERS}),
    layers=tuple(layer_of(n) for n in LAYERS),
)
ARRAYS = ("counts_HDE", "dropped_D", "probability_DE", *SUMS)


def assert_same(found, expected=EXPECTED):
    assert found.domains == expected.domains
    assert found.sizes == expected.sizes
    for one, two in zip(found.layers, expected.layers, strict=True):
        for name, array in two.arrays().items():
            np.testing.assert_array_equal(one.arrays()[name], array, err_msg=name)


def state(names):
    about = {"domains": DOMAINS, "layers": [[n, EXPERTS, TOP_K] for n in LAYERS]}
    arrays = {
        f"{name}/{array}": np.concatenate([getattr(one, array).ravel() for one in EXPECTED.layers])
        for name in names
        for array in ARRAYS
    }
    return json.dumps(about), arrays


def write_window(folder):
    counts, layers = [], []
    for one in EXPECTED.layers:
        even, odd = (half.ravel() for half in one.counts_HDE)
        counts.append(
            pl.DataFrame(
                {
                    "step_start": pl.Series([0] * even.size, dtype=pl.Int32),
                    "step_end": pl.Series([10] * even.size, dtype=pl.Int32),
                    "domain": np.repeat(DOMAINS, EXPERTS).tolist(),
                    "layer": pl.Series([one.layer] * even.size, dtype=pl.Int16),
                    "expert": pl.Series([*range(EXPERTS)] * len(DOMAINS), dtype=pl.Int16),
                    "even": even,
                    "odd": odd,
                    "probability_sum": one.probability_DE.ravel(),
                    "count": even + odd,
                }
            )
        )
        layers.append(
            pl.DataFrame(
                {
                    "step_start": pl.Series([0] * len(DOMAINS), dtype=pl.Int32),
                    "step_end": pl.Series([10] * len(DOMAINS), dtype=pl.Int32),
                    "domain": list(DOMAINS),
                    "layer": pl.Series([one.layer] * len(DOMAINS), dtype=pl.Int16),
                    "top_k": pl.Series([TOP_K] * len(DOMAINS), dtype=pl.Int16),
                    "dropped": one.dropped_D,
                    "entropy_sum": one.entropy_D,
                    "squared_logsumexp_sum": one.squared_logsumexp_D,
                    "chosen_sum": one.chosen_D,
                }
            )
        )
    for name, frames in (("counts", counts), ("layers", layers)):
        (folder / name).mkdir(parents=True)
        pl.concat(frames).write_parquet(folder / name / "part-00000010.parquet")


def write_probe(file):
    about = {"domains": DOMAINS, "layers": [[n, TOP_K] for n in LAYERS]}
    arrays = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "domain_U": np.array([0, 1, 2], np.uint8),
        "tokens_U": np.array([2, 2, 2], np.uint8),
        "domain_T": np.array([0, 0, 1], np.uint8),
    }
    for number in LAYERS:
        # The first sequence has a choice that was dropped.
        arrays[f"{number}/counts_UE"] = np.array(
            [[2, 1, 0, 0], [0, 2, 2, 0], [1, 1, 1, 1]], np.uint8
        )
        arrays[f"{number}/ids_TK"] = np.array([[0, 1], [0, EXPERTS], [1, 2]], np.uint8)
        arrays[f"{number}/shared_D"] = np.full(len(DOMAINS), np.nan)
    file.parent.mkdir(parents=True)
    np.savez_compressed(file, **arrays)


def test_windows_and_probes_are_read_and_told(tmp_path):
    write_window(tmp_path / "experts")
    write_probe(tmp_path / "experts/probe/00000010.npz")
    record = ExpertRecord(tmp_path / "experts")
    (window,), ((step, probe),) = record.windows(), record.probes()
    assert_same(window.assignments)
    assert (window.start, window.end, step) == (0, 10, 10)
    of_probe = probe.assignments()
    assert of_probe.layer(2).counts_DE.tolist() == [[2, 1, 0, 0], [0, 2, 2, 0], [1, 1, 1, 1]]
    assert of_probe.layer(2).dropped_D.tolist() == [1, 0, 0]
    assert of_probe.layer(2).unused_D.tolist() == [0, 0, 0]
    assert "steps 1 to 10" in str(experts(tmp_path))


def test_new_windows_add_up_with_those_of_before(tmp_path):
    write_window(tmp_path / "experts")
    record = ExpertRecord(tmp_path / "experts")
    record.write_window(replace(record.windows()[0], start=10, end=20))
    first, second = (window.assignments for window in record.windows())
    assert_same(first + second, EXPECTED + EXPECTED)


def test_a_state_in_a_checkpoint_is_gone_on_from(tmp_path):
    about, arrays = state(("total", "window"))
    stats = RouterStats.attach(tiny(), DOMAINS)
    stats.load_state_dict({"about": about, **{n: torch.from_numpy(a) for n, a in arrays.items()}})
    assert_same(stats.total())
    about, arrays = state(("line", "part"))
    text = np.frombuffer(about.encode(), np.uint8)
    np.savez_compressed(tmp_path / "experts.npz", about=text, begun=np.array(4), **arrays)
    found, begun = _read(tmp_path / "experts.npz")
    assert begun == 4
    stats.load_state_dict(
        {
            key.replace("line", "total").replace("part", "window"): array
            for key, array in found.items()
        }
    )
    assert_same(stats.total())


def test_the_counts_of_a_trial_are_read():
    def text(array):
        return " ".join(map(repr, array.ravel().tolist()))

    layers = [
        {"layer": one.layer, "top_k": TOP_K, "experts": EXPERTS}
        | {name: text(getattr(one, name)) for name in ARRAYS}
        for one in EXPECTED.layers
    ]
    assignments = {"domains": list(DOMAINS), "layers": layers}
    told = {"layer": 1, "information": 0.3, "chance": 0.1, "corrected": 0.2}
    found = counts_from_json(
        {
            "train": assignments,
            "held_out": assignments,
            "information": [{**told, "specialisation": None}],
        }
    )
    assert_same(found.train)
    assert_same(found.held_out)
    assert found.information[0].key == "1"


def test_the_table_of_a_sweep_is_read(tmp_path):
    columns = {
        "trial": ["a", "a"],
        "layer": [1, 1],
        "domain": [None, "web"],
        "share": [None, 0.5],
        "load_entropy": [0.9, None],
        "max_violation": [0.2, 0.3],
        "dead": [0, None],
        "starved": [None, 1],
        "router_entropy": [1.0, 1.1],
        "specialisation": [0.1, None],
        "own": [None, 2.0],
        "distance": [None, 0.4],
        "has_collapsed": [False, None],
        "diagnoses": [["odd"], None],
    }
    pl.DataFrame(columns).write_parquet(tmp_path / "experts.parquet")
    found = TrialExperts.read(tmp_path / "experts.parquet")
    assert found.table["router"].to_list() == ["", ""]
    assert found.collapsed == ()
