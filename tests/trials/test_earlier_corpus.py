"""Trials of an earlier version of a corpus: which hold, what became of domains, what they save."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from made_fit import table
from made_run import domain_names, made_config
from mixopt_regressors.combinations import AutoRegressor

import mixopt
from mixopt.errors import TrialsError
from mixopt.fitting import Fit
from mixopt.mixture import DomainContent
from mixopt.run_directory import carried_trials
from mixopt.trials import Trials, carried_to as carried

OLD = {"web": DomainContent("a", 9), "code": DomainContent("b", 9), "wiki": DomainContent("c", 9)}
RNG = np.random.default_rng(0)
WEIGHTS_ND = [[0.5, 0.3, 0.2], [0.7, 0.3, 0.0]]
EARLIER = replace(table(WEIGHTS_ND, np.ones((2, 1)), tuple(OLD), ("exam",)), contents=OLD)


def carried_to(corpus, **became):
    return carried(EARLIER, corpus, became, "runs/v1")


def test_hashes_tell_which_domains_hold_are_renamed_grown_or_changed():
    corpus = {"code": OLD["code"], "wiki": DomainContent("x", 20), "pages": OLD["web"]}
    corpus["maths"] = DomainContent("m", 9)
    found, unknown = carried_to(corpus)
    assert found.domains == tuple(corpus)
    assert found.weights()[0].tolist() == [0.3, 0.2, 0.5, 0.0]
    assert unknown == ["maths"]
    (line,) = found.notes
    assert "runs/v1: 2 of 2 trials are carried over: 1 of 4 domains hold" in line
    assert "grown: 'wiki'" in line
    assert "rename 'web' to 'pages'" in line
    assert carried_to({**OLD, "wiki": DomainContent("x", 9)})[1] == ["wiki"]


def test_a_user_says_what_became_of_the_others():
    corpus = {"news": DomainContent("n", 30), "blogs": DomainContent("o", 10), "code": OLD["code"]}
    found, unknown = carried_to(corpus, web=["news", "blogs"], wiki=None)
    assert found.weights().tolist() == [pytest.approx([0.525, 0.175, 0.3])]
    assert unknown == []
    merged, _ = carried_to({"text": OLD["web"], "code": OLD["code"]}, web="text", wiki="text")
    assert merged.weights()[0].tolist() == pytest.approx([0.7, 0.3])


def test_a_table_keeps_what_its_domains_held_and_rows_of_another_corpus_are_one_line(tmp_path):
    EARLIER.write(tmp_path / "trials.parquet")
    assert Trials.read(tmp_path / "trials.parquet").contents == OLD
    with pytest.raises(TrialsError, match=r"runs/v1: trials of another corpus: domain 'wiki' is"):
        carried_to({"web": OLD["web"], "code": OLD["code"]})
    with pytest.raises(TrialsError, match=r"runs/v1: domain 'cod' is not in this .*'code'\?"):
        carried_to({"web": OLD["web"], "code": OLD["code"]}, wiki="cod")


DOMAINS, TARGETS = tuple("abcdef"), ("x", "y")
HELP_DM = RNG.uniform(0, 1, (6, 2))


def law(weights_ND):
    losses_NM = np.exp(-3 * np.sqrt(weights_ND) @ HELP_DM)
    return 1 + losses_NM + 0.001 * RNG.standard_normal(losses_NM.shape)


@pytest.fixture(scope="module")
def swarms():
    """Trials of a law: 40 without the last domain, 8 new ones, and 40 to predict."""
    few_ND = np.hstack([RNG.dirichlet(np.ones(5), 40), np.zeros((40, 1))])
    rows = [few_ND, RNG.dirichlet(np.ones(6), 8), RNG.dirichlet(np.ones(6), 40)]
    return [table(weights_ND, law(weights_ND), DOMAINS, TARGETS) for weights_ND in rows]


def error(new, unseen, *carried):
    rows = np.hstack(carried).tolist() if carried else None
    auto = AutoRegressor(candidates=("gaussian_process",), carried=rows)
    auto.fit(new.weights(), new.losses())
    away_NM = auto.predict(unseen.weights()) - unseen.losses()
    return np.square(away_NM).mean() ** 0.5, auto


def test_carried_trials_that_hold_lower_the_error_and_others_are_not_believed(swarms):
    old, new, unseen = swarms
    alone, _ = error(new, unseen)
    holds, auto = error(new, unseen, old.weights(), old.losses())
    assert holds < 0.6 * alone
    assert auto.weights_MC[:, 1].min() > 0.5
    wrong, auto = error(new, unseen, old.weights(), 3 - old.losses())
    assert wrong < 1.3 * alone
    assert auto.weights_MC[:, 1].max() < 0.3


def test_a_fit_with_carried_trials_is_read_as_it_was_written(swarms, tmp_path):
    old, new, unseen = swarms
    fit = new.fit(regressors="auto", carried=old.with_targets(["x"]))
    fit.save(tmp_path / "fit")
    read = Fit.load(tmp_path / "fit")
    again = [one.resampled([1], count=2, rng=np.random.default_rng(0))[1] for one in (fit, read)]
    for one, other in ((fit.regressor, read.regressor), again):
        found = [np.asarray(a.predict(unseen.weights())) for a in (one, other)]
        np.testing.assert_allclose(*found, rtol=1e-9)


def test_carried_trials_of_other_domains_or_losses_are_one_line(swarms):
    old, new, _ = swarms
    with pytest.raises(TrialsError, match="carried: trials of other domains; reindex"):
        new.fit(carried=old.reindex(remove=["f"]))
    other = table(old.weights(), old.losses(), old.domains, ("p", "q"))
    with pytest.raises(TrialsError, match="carried: trials without any loss of these"):
        new.fit(carried=other)


def test_a_run_on_a_later_corpus_carries_trials_and_tries_what_they_do_not_know(tmp_path):
    said = []
    for version, domains, trials in (("v1", 4, 12), ("v2", 5, 8)):
        content = made_config(tmp_path, domains, trials) | {"fit": {"regressors": ["auto"]}}
        content["design"] = {"trials": trials, "rounds": False}
        content["constraints"] = {}
        content["proxy"] |= {"tokens": 1000, "eval_every": 0}  # no domain is repeated
        if version == "v2":
            content["design"]["earlier"] = str(tmp_path / "v1")
        source = tmp_path / f"{version}.yaml"
        source.write_text(yaml.safe_dump(content))
        until = "sweep" if version == "v1" else "fit"
        run = mixopt.run(source, tmp_path / version, until=until, say=said.append)
    new = domain_names(5)[-1]
    assert len(carried_trials(run)) == 12 + 5
    assert [t.mixture[new] for t in run.design if t.role == "axial"] == [pytest.approx(0.6)]
    assert any("17 of 17 trials are carried over: 4 of 5 domains hold" in line for line in said)
    assert any("gaussian_process+carried 0." in line for line in said)
