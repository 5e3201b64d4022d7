"""Effects of sources: paired differences, intervals, Holm's p-values, one seed."""

import numpy as np
import polars as pl
import pytest

from mixopt.config import AnnealsConfig
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import anneal_effects, anneal_lines
from mixopt.proposals.anneals import holm
from mixopt.trials import Losses, Trial, TrialResult, Trials

DOMAINS = ("web", "code", "maths", "prose")
SOURCES = ["code", "maths", "prose"]
TARGETS = (*DOMAINS, "exam", "quiz")
CONTROL = {"exam": [1.0, 1.2, 0.9], "quiz": [2.0, 2.1, 2.2], "web": [1.0, 1.0, 1.0]}
# anneal - control by seed, of `exam`
CHANGES = {
    "code": [-0.10, -0.12, -0.11],
    "maths": [-0.20, 0.10, -0.05],
    "prose": [0.05, 0.06, 0.055],
}


def effects_of(*, objective=None, failed=()):
    """Return the effects of anneals whose losses on `exam` change so from the control's."""
    trials, results = [], []
    for seed in range(3):
        for source in (None, *SOURCES):
            values = {name: weights[seed] for name, weights in CONTROL.items()}
            if source is not None:
                values["exam"] += CHANGES[source][seed]
            name = "control" if source is None else f"anneal_{source}"
            weights = {"web": 1.0} if source is None else {"web": 0.5, source: 0.5}
            mixture = Mixture({d: weights.get(d, 0.0) for d in DOMAINS})
            role = "control" if source is None else "anneal"
            trials.append(Trial(f"{name}-s{seed}", mixture, seed, role))
            losses = Losses(100, *[dict.fromkeys(TARGETS, 1.5) | values] * 2)
            ended = "finished", 100, 1, 0.0, losses
            if (source, seed) in failed:
                ended = "diverged", 0, 1, 0.0, None, (), "loss is nan"
            results.append(TrialResult(trials[-1].name, *ended))
    table = Trials.from_results(trials, results, proxy="ngram", targets=TARGETS)
    aim = objective or Objective(TARGETS, "mean", {"exam": 0.5, "quiz": 0.5})
    return anneal_effects(table, aim, AnnealsConfig(sources=SOURCES, share=0.5))


def row(effects, source, target):
    by_target = pl.col("target").is_null() if target is None else pl.col("target") == target
    return effects.row(by_predicate=by_target & (pl.col("source") == source), named=True)


def test_an_effect_is_the_mean_of_paired_differences_with_student_s_interval_by_direction():
    found = row(effects_of(), "code", "exam")
    error = np.std(CHANGES["code"], ddof=1) / np.sqrt(3)
    assert found["difference"] == pytest.approx(0.11)
    assert found["high"] - found["difference"] == pytest.approx(4.302653 * error, rel=1e-5)
    assert found["seeds"] == 3
    higher = Objective(TARGETS, "target", {"exam": 1.0}, higher=("exam",))
    assert row(effects_of(objective=higher), "code", "exam")["difference"] == pytest.approx(-0.11)


def test_verdicts_follow_holm_s_p_values_which_are_those_of_the_paper():
    found = {name: row(effects_of(), name, "exam") for name in SOURCES}
    verdicts = {name: effect["verdict"] for name, effect in found.items()}
    assert verdicts == {"code": "better", "maths": "not significant", "prose": "worse"}
    assert found["code"]["p_holm"] < 0.05 < found["maths"]["p_holm"]
    assert [found[name]["rank"] for name in SOURCES] == [1, 2, 3]
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06, "d": None})


def test_seeds_of_which_one_run_failed_are_left_out():
    lost = {("code", 0), ("maths", 0), ("maths", 1), *(("prose", seed) for seed in range(3))}
    effects = effects_of(failed=lost)
    assert row(effects, "code", "exam")["seeds"] == 2
    effect = row(effects, "maths", "exam")
    assert (effect["verdict"], effect["low"], effect["p_holm"]) == ("one seed", None, None)
    assert row(effects, "prose", "exam")["verdict"] == "no pair"
    assert "maths: +0.0250, 1 seed: one seed" in anneal_lines(effects)
    assert "prose: no anneal of it finished together with its control" in anneal_lines(effects)


def test_a_line_has_difference_interval_seeds_and_verdict():
    (line,) = [item for item in anneal_lines(effects_of()) if item.startswith("code")]
    assert line == "code: +0.0550, +0.0426 to +0.0674, 3 seeds: better"
