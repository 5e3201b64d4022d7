"""Effects of sources: paired differences, intervals, Holm's p-values, costs, one seed."""

import numpy as np
import pytest

from mixopt.config import AnnealsConfig
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import Anneals
from mixopt.proposals.anneal_effects import holm
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


def made(changes=CHANGES, *, web=(), objective=None, failed=()):
    """Return the anneals whose losses on `exam` change so from the control's."""
    trials, results = [], []
    for seed in range(3):
        for source in (None, *SOURCES):
            values = {name: own[seed] for name, own in CONTROL.items()}
            if source is not None:
                if seed >= len(changes[source]):
                    continue
                values["exam"] += changes[source][seed]
                values["web"] += dict(web).get(source, 0.0)
            elif seed >= max(map(len, changes.values())):
                continue
            name = "control" if source is None else f"anneal_{source}"
            own = {"web": 1.0} if source is None else {"web": 0.5, source: 0.5}
            mixture = Mixture({d: own.get(d, 0.0) for d in DOMAINS})
            role = "control" if source is None else "anneal"
            trials.append(Trial(f"{name}-s{seed}", mixture, seed, role))
            results.append(_result(trials[-1].name, values, (source, seed) in failed))
    table = Trials.from_results(trials, results, proxy="ngram", targets=TARGETS)
    aim = objective or Objective(TARGETS, "mean", {"exam": 0.5, "quiz": 0.5})
    return Anneals.of(table, aim, AnnealsConfig(sources=SOURCES, share=0.5))


def _result(trial, values, failed):
    if failed:
        return TrialResult(trial, "diverged", 0, 1, 0.0, reason="loss is nan")
    losses = dict.fromkeys(TARGETS, 1.5) | values
    return TrialResult(trial, "finished", 100, 1, 0.0, Losses(100, losses, losses))


def test_an_effect_is_the_mean_of_paired_differences_with_student_s_interval():
    effect = made().effect("code", "exam")
    error = np.std(CHANGES["code"], ddof=1) / np.sqrt(3)
    assert effect.mean == pytest.approx(-0.11)
    assert effect.high - effect.mean == pytest.approx(4.302653 * error, rel=1e-5)
    assert effect.mean - effect.low == pytest.approx(effect.high - effect.mean)


def test_sources_are_ranked_on_each_target_and_on_the_objective():
    found = made()
    assert found.ranks("exam") == {"code": 1, "maths": 2, "prose": 3}
    assert [one.source for one in found.effects()] == ["code", "maths", "prose"]
    assert found.effect("code").mean == pytest.approx(-0.055)


def test_p_values_are_holm_s_over_the_sources():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None}) == {
        "a": pytest.approx(0.03),
        "b": pytest.approx(0.06),
        "c": pytest.approx(0.06),
        "d": None,
    }


def test_a_verdict_considers_all_sources():
    found = made()
    verdicts = {one.source: one.verdict for one in found.effects("exam")}
    assert verdicts == {"code": "better", "maths": "not significant", "prose": "worse"}


def test_one_source_s_interval_may_exclude_what_all_sources_together_do_not():
    changes = {**CHANGES, "code": [-0.06, -0.12, -0.09]}
    effect = made(changes).effect("code", "exam")
    assert effect.high < 0
    assert effect.verdict == "not significant"


def test_one_seed_ranks_and_claims_nothing():
    found = made({name: values[:1] for name, values in CHANGES.items()})
    effect = found.effect("maths", "exam")
    assert (effect.mean, effect.low, effect.p) == (pytest.approx(-0.2), None, None)
    assert effect.verdict == "one seed"
    assert found.ranks("exam") == {"maths": 1, "code": 2, "prose": 3}


def test_a_seed_that_diverged_is_left_out_of_its_source_alone():
    found = made(failed={("code", 0)})
    assert (found.effect("code", "exam").seeds, found.effect("prose", "exam").seeds) == (2, 3)
    assert found.effect("code", "exam").mean == pytest.approx(-0.115)


def test_a_source_with_fewer_pairs_than_asked_for_is_said():
    assert made().problems == []
    assert made(failed={("prose", 1)}).problems == [
        "prose: 2 of 3 pairs finished together; its change, interval and rank are of those alone"
    ]


def test_a_control_that_diverged_is_said_of_all_sources():
    found = made(failed={(None, 1)})
    assert [line.partition(":")[0] for line in found.problems] == SOURCES


def test_a_source_of_which_no_seed_finished_is_said():
    found = made(failed={("prose", 0), ("prose", 1), ("prose", 2)})
    assert found.effect("prose") is None
    assert found.problems == ["prose: no anneal of it finished together with its control"]


def test_the_largest_cost_is_of_a_loss_outside_the_objective():
    found = made(web={"code": 0.3, "maths": -0.1})
    name, cost = found.largest_cost("code")
    assert (name, cost.mean) == ("web", pytest.approx(0.3))
    assert found.largest_cost("maths") is None


def test_a_guardrail_is_broken_beyond_its_margin():
    found = made(web={"code": 0.3, "maths": 0.01})
    assert found.broken("code", {"web": 0.02}) == ("web",)
    assert found.broken("maths", {"web": 0.02}) == ()


def test_where_higher_is_better_a_gain_is_below_zero_too():
    objective = Objective(TARGETS, "target", {"exam": 1.0}, higher=("exam",))
    found = made(objective=objective)
    assert found.effect("code", "exam").mean == pytest.approx(0.11)
    assert found.ranks("exam")["prose"] == 1


def test_plain_values_have_every_loss():
    found = made().to_json()
    assert set(found["losses"]) == set(TARGETS)
    assert found["objective"]["code"]["verdict"] in ("better", "not significant")
    assert found["base"] == {"web": 1.0}
    assert found["tokens"] == 1200
