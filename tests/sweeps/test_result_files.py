"""Designs and results survive a round trip to disk; errors name the damaged file."""

import json
import os
from contextlib import suppress
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from flips import flips
from made_experts import counted
from made_fit import make_trials
from refusals import refuses

from mixopt.errors import DesignError, MixoptError, RunError
from mixopt.mixture import Mixture
from mixopt.routing import ExpertCounts
from mixopt.sweeps import (
    TrialFolder,
    log_of_trial,
    read_entry,
    result_to_json,
    trial_fingerprint,
    trial_paths,
    trial_to_json,
    valid_result,
)
from mixopt.system import write_sealed
from mixopt.trials import Losses, Trial, TrialResult, Trials, read_design, write_design

MIXTURES = [Mixture({"web": w, "code": 1 - w}) for w in (0.25, 0.5)]
TRIALS = [Trial("t0", MIXTURES[0], 3), Trial("t1", MIXTURES[1], 4, role="anchor", round=2)]
LOSSES = Losses(100, {"web": 2.0, "code": 1.0}, {"web": 1.0, "code": 0.5})
RESULTS = [
    TrialResult("t0", "finished", 100, 5, 1.5, LOSSES, (LOSSES, LOSSES)),
    TrialResult("t1", "failed", 0, 5, 0.5, reason="out of memory"),
]


def test_results_survive_json():
    counts = counted([np.full((2, 4), 10)])
    experts = replace(RESULTS[0], experts=ExpertCounts(counts, counts))
    for result in (*RESULTS, experts):
        content = json.loads(json.dumps(result_to_json(result)))
        reloaded = valid_result(content)
        assert ("experts" in content) is (result is experts)
        assert json.loads(json.dumps(result_to_json(reloaded))) == content
        assert replace(reloaded, experts=None) == replace(result, experts=None)
    for read in (reloaded.experts.train, reloaded.experts.held_out):
        assert read.to_json() == counts.to_json()


def test_a_folder_keeps_results_by_trial(tmp_path):
    folder = TrialFolder(tmp_path)
    folder.write(TRIALS, RESULTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t0.json", "t1.json"]
    third = Trial("t2", MIXTURES[0], 9)
    assert TrialFolder(tmp_path).results([*TRIALS, third]) == dict(
        zip(("t0", "t1"), RESULTS, strict=True)
    )
    folder.forget("t1")
    folder.forget("t1")
    assert list(folder.results(TRIALS)) == ["t0"]


def test_files_of_trials_are_told_from_the_others(tmp_path):
    for name in ("t0.json", "groups.json", "rounds.json", ".group-00000.json", "t0.txt"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in trial_paths(tmp_path)] == ["t0.json"]


def test_the_log_of_a_trial_is_that_of_the_last_attempt_at_its_group(tmp_path):
    (tmp_path / "logs").mkdir()
    for place, name in enumerate(["t0-1.1", "t0-1.2", "t0-x-1.3", "t1-1.4"]):
        log = tmp_path / "logs" / f"{name}.log"
        log.write_text("")
        os.utime(log, (place, place))
    os.mkfifo(tmp_path / "logs" / "t0-1.5.log")  # which would be waited for
    groups = [["t0", "t1"], ["t2"]]
    assert log_of_trial(tmp_path, "t1", groups) == tmp_path / "logs" / "t0-1.2.log"
    assert log_of_trial(tmp_path, "t2", groups) is None
    assert log_of_trial(tmp_path / "absent", "t0", groups) is None


def test_a_file_of_another_trial_configuration_or_corpus_is_refused(tmp_path):
    TrialFolder(tmp_path).write(TRIALS, RESULTS)
    for other in (Trial("t0", MIXTURES[1], 3), Trial("t0", MIXTURES[0], 4)):
        with pytest.raises(RunError, match=r"t0\.json: is for another mixture or seed; delete it"):
            TrialFolder(tmp_path).results([other])
    (tmp_path / "t0.json").write_text("[]")
    with pytest.raises(RunError, match=r"t0\.json: expected fields, got list; delete it"):
        TrialFolder(tmp_path).results(TRIALS)
    mine = trial_fingerprint("step", "corpus")
    TrialFolder(tmp_path, mine).write(TRIALS, RESULTS)
    assert len(TrialFolder(tmp_path, mine).results(TRIALS)) == len(TRIALS)
    for other in (trial_fingerprint("step", "other"), trial_fingerprint("other", "corpus"), ""):
        with pytest.raises(RunError, match=r"t0\.json: was trained by another configuration"):
            TrialFolder(tmp_path, other).results(TRIALS)


def test_a_trial_is_written_nowhere_outside_its_folder(tmp_path):
    with pytest.raises(RunError, match="rename it"):
        TrialFolder(tmp_path / "trials").write(
            [replace(TRIALS[0], name="../../OUTSIDE")], RESULTS[:1]
        )
    assert not list(tmp_path.iterdir())


def test_every_flip_in_a_trial_is_found_or_harmless(tmp_path):
    TrialFolder(tmp_path).write(TRIALS[:1], RESULTS[:1])
    path = tmp_path / "t0.json"
    for _ in flips(path, step=7):
        with suppress(RunError):
            assert read_entry(path) == (TRIALS[0], RESULTS[0])


def test_every_flip_in_a_design_or_a_table_of_trials_is_found_or_harmless(tmp_path):
    design, table = tmp_path / "design.parquet", tmp_path / "trials.parquet"
    trials = make_trials(count=3, replicates=0)
    write_design(TRIALS, design)
    trials.write(table)
    for path, read, written in ((design, read_design, TRIALS), (table, Trials.read, trials)):
        for _ in flips(path, count=40):
            with suppress(MixoptError):
                assert read(path) == written


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tokens", -1, "result.tokens"),
        ("losses", {"tokens": 1}, "result.losses.nats_per_token: is missing"),
        ("experts", {"train": []}, "experts.train: not counts of experts: list indices must"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_its_file(tmp_path, field, value, message):
    result = {**result_to_json(RESULTS[0]), field: value}
    entry = {"made_by": "", "trial": trial_to_json(TRIALS[0]), "result": result}
    write_sealed(tmp_path / "t0.json", entry)
    refuses(RunError, rf"t0\.json: {message}", read_entry, tmp_path / "t0.json")


def test_a_design_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "design.parquet"
    write_design(TRIALS, path)
    assert read_design(path) == TRIALS
    assert pl.read_parquet(path).columns == [
        "trial", "role", "seed", "round", "mixture", "weight/web", "weight/code",
    ]  # fmt: skip


SWAPPED = {"web": pl.col("weight/code"), "code": pl.col("weight/web")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop("seed"), "not a design: no column 'seed'"),
        (lambda table: table.drop("weight/web", "weight/code"), "no column 'weight/...'"),
        (
            lambda table: table.with_columns(*(w.alias(f"weight/{n}") for n, w in SWAPPED.items())),
            "trial 't0': its weights are not those of",
        ),
        (lambda table: table.with_columns(pl.lit(-1.0).alias("weight/web")), "trial 't0': .*web"),
        (
            lambda table: table.with_columns(pl.lit("x").alias("seed")),
            "seed: expected Int64 in eve",
        ),
    ],
)
def test_a_file_that_is_no_design_is_named(tmp_path, change, message):
    path = tmp_path / "design.parquet"
    refuses(DesignError, r"design\.parquet: not found; make it again with", read_design, path)
    write_design(TRIALS, path)
    change(pl.read_parquet(path)).write_parquet(path)
    refuses(DesignError, message, read_design, path)
