"""With simulated epochs a proxy repeats each domain as often as the full run will."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mixopt_proxies.decoder import TrialBatches
from mixopt_proxies.ngram import NgramProxy
from mixopt_proxies.ngram.ngram_proxy import draw_tokens
from refusals import refusal
from token_writers import write_shards

import mixopt
from mixopt.config import load_config
from mixopt.corpus import Corpus, Domain
from mixopt.loading import Pool
from mixopt.mixture import Mixture
from mixopt.pipeline import check
from mixopt.sweeps import Training
from mixopt.trials import Trial

LENGTH, BATCH = 10, 8
INVENTORY = {"a": 40_000, "b": 9_000, "c": 2_500}
EDGES = [0, 40_000, 49_000, 51_500]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Three domains; the tokens of each count up from a number of its own."""
    folder, domains = tmp_path_factory.mktemp("counted"), []
    for d, name in enumerate(INVENTORY):
        tokens = np.arange(EDGES[d], EDGES[d + 1])
        shards = write_shards(folder / name, tokens, dtype="uint32")
        domains.append(Domain(name, shards, shards))
    return Corpus(folder, tuple(domains), (), "counted", EDGES[-1], "counted", {})


def batches_of(corpus, weights, target_tokens, steps=400, seed=1) -> TrialBatches:
    trials = [Trial("t", Mixture(weights), seed=seed)]
    training = Training(steps * BATCH * LENGTH, target_tokens=target_tokens)
    return TrialBatches(trials, corpus, training, batch=BATCH, length=LENGTH)


def starts_of(batches, steps=400) -> dict[str, Counter]:
    """How often each window was drawn, by domain, named by its first token."""
    first = batches.block(0, steps)[:, 0, :, 0].ravel().tolist()
    return {
        name: Counter(token for token in first if EDGES[d] <= token < EDGES[d + 1])
        for d, name in enumerate(INVENTORY)
    }


def test_a_domain_is_repeated_as_in_the_full_run_and_a_shorter_trial_draws_from_a_part(corpus):
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    target = 400_000  # a trial is 32,000 tokens: pools of 320, 72 and 20 whole sequences
    for name, counts in starts_of(batches_of(corpus, weights, target)).items():
        wanted = weights[name] * target / INVENTORY[name]
        assert counts.total() / len(counts) == pytest.approx(wanted, rel=0.01)
        assert set(counts.values()) <= {int(wanted), int(wanted) + 1}
    short = starts_of(batches_of(corpus, weights, target, steps=200), steps=200)
    long = starts_of(batches_of(corpus, weights, target, seed=9))
    for name in INVENTORY:
        assert set(short[name]) < set(long[name])


@settings(max_examples=50)
@given(sequences=st.floats(1, 60), count=st.integers(1, 500), seed=st.integers(0, 9))
def test_epochs_are_exact_to_one_sequence_however_small_the_pool(sequences, count, seed):
    pool = Pool(sequences, np.arange(100, 100 + int(np.ceil(sequences - 1e-9))))
    drawn = pool.draw(count, np.random.default_rng(seed))
    repeats = np.bincount(drawn - 100, minlength=len(pool.rows_P))
    whole = repeats[: int(sequences)]
    assert len(drawn) == count
    assert whole.max() - whole.min() <= 1
    seven = pool.draw(int(7 * sequences + 1e-9), np.random.default_rng(seed))
    assert set(np.bincount(seven - 100)[: int(sequences)].tolist()) == {7}


def test_a_pool_below_one_sequence_says_what_mends_it(corpus):
    weights = {"a": 0.4, "b": 0.3, "c": 0.3}
    assert refusal(batches_of, corpus, weights, 10_000_000) == (
        "domain 'c': a trial of 32000 of the full run's 10000000 tokens leaves a pool of 8 of its"
        " 2500 tokens, but one sequence takes 10: raise proxy.tokens to 40000, set"
        " proxy.options.sequence_length to 8 or less, or leave out proxy.simulate_epochs"
    )
    batches_of(corpus, weights, 10_000_000, steps=500)


def test_the_ngram_proxy_repeats_as_often_as_the_full_run(corpus):
    mixture, target = Mixture({"a": 0.5, "b": 0.3, "c": 0.2}), 400_000
    rng, training = np.random.default_rng(0), Training(32_000, target_tokens=target)
    tokens, _ = draw_tokens(corpus, mixture, training, window=20, rng=rng)
    repeats = np.bincount(tokens, minlength=EDGES[-1])
    for d, name in enumerate(INVENTORY):
        counts = repeats[EDGES[d] : EDGES[d + 1]]
        wanted = mixture[name] * target / INVENTORY[name]
        assert counts[counts > 0].mean() == pytest.approx(wanted, rel=0.01)


def test_a_proxy_that_does_not_simulate_epochs_is_not_asked_to(config_path, monkeypatch):
    monkeypatch.setattr(NgramProxy, "simulates_epochs", False)
    simulated = ["proxy.simulate_epochs=true", "propose.target_tokens=400000"]
    found = check(load_config(config_path, overrides=simulated)).problems
    message = "proxy.simulate_epochs: proxy 'ngram' cannot simulate epochs; leave it out"
    assert message in map(str, found)


def test_a_sweep_trains_on_the_pools_of_the_full_run(config_path, tmp_path):
    simulated = ["proxy.simulate_epochs=true", "propose.target_tokens=400000"]
    overrides = [*simulated, "design.trials=4"]
    run = mixopt.run(config_path, tmp_path / "run", overrides=overrides, until="sweep")
    trial = next(trial for trial in run.design if trial.name == "uniform")
    training = Training(20_000, eval_tokens=4_096, target_tokens=400_000)
    alone = NgramProxy().train([trial], run.corpus, training, lambda progress: None)[0]
    rows = run.trials.table.filter(run.trials.table["trial"] == "uniform")
    assert rows["loss/help"].item() == alone.losses.nats_per_token["help"]
