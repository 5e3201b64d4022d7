"""What a trial trains on: exact shares, no row twice in an epoch, all from its own seed."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from mixopt_proxies.decoder import TrialBatches
from mixopt_proxies.decoder.stack_trainer import initial_seed
from mixopt_proxies.decoder.trial_batches import window_starts
from token_writers import write_shards

from mixopt.corpus import Corpus, Domain
from mixopt.errors import CorpusError
from mixopt.mixture import Mixture
from mixopt.sweeps import Training
from mixopt.trials import Trial

LENGTH = 9


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Three domains; token i of domain d is 1000 d + i, so a token says where it came from."""
    folder = tmp_path_factory.mktemp("corpus")
    tokens = {"a": 700, "b": 400, "c": 95}
    domains = []
    for d, (name, count) in enumerate(tokens.items()):
        train = write_shards(folder / name, np.arange(count) + 1000 * d)
        domains.append(Domain(name, train, write_shards(folder / f"{name}-validation", range(50))))
    return Corpus(folder, tuple(domains), (), "counted", 3000, "", {})


def batches_of(corpus, weights, length=LENGTH):
    """The batches of a trial of 20 steps of 4 sequences."""
    trials = [Trial("t", Mixture(weights), seed=5)]
    return TrialBatches(trials, corpus, Training(80 * length), batch=4, length=length)


def test_a_trial_draws_its_share_of_each_domain_to_one_sequence(corpus):
    batches = batches_of(corpus, {"a": 0.62, "b": 0.303, "c": 0.077})
    block = batches.block(0, 20)
    assert block.shape == (20, 1, 4, LENGTH + 1)
    drawn = np.bincount(block[..., 0].ravel() // 1000, minlength=3)
    # 80 sequences: 49.6, 24.24 and 6.16.
    assert drawn.tolist() == [50, 24, 6]


@given(
    tokens=st.integers(10, 500),
    window=st.integers(1, 10),
    count=st.integers(0, 300),
    seed=st.integers(0, 99),
)
def test_windows_of_an_epoch_do_not_overlap(tokens, window, count, seed):
    starts = window_starts(tokens, window, count, np.random.default_rng(seed), nested=False)
    assert len(starts) == count
    assert ((starts >= 0) & (starts + window <= tokens)).all()
    # Whatever the offset, an epoch has at least this many windows.
    first = np.sort(starts[: max((tokens - window + 1) // window, 1)])
    assert (np.diff(first) >= window).all()


def test_the_places_that_a_seed_draws_stay_as_they_are():
    def drawn(nested):
        return window_starts(100, 10, 12, np.random.default_rng(0), nested=nested).tolist()

    assert drawn(nested=False) == [8, 18, 28, 48, 88, 38, 68, 58, 78, 35, 75, 25]
    assert drawn(nested=True) == [48, 58, 28, 68, 38, 88, 78, 8, 18, 25, 85, 35]
    assert initial_seed(Trial("t", Mixture({"a": 1.0}), seed=1)) == 110601800956334758


def test_a_domain_shorter_than_one_sequence_is_named(corpus):
    with pytest.raises(CorpusError) as error:
        batches_of(corpus, {"a": 1.0, "b": 0.0, "c": 0.0}, length=128)
    assert str(error.value) == (
        "domain 'c': training text has 95 tokens, but one sequence takes 129: add text,"
        " or set proxy.options.sequence_length to 94 or less"
    )


def by_domain(batches, k, d):
    """The first tokens of the sequences of a domain, in their order."""
    rows = batches.block(0, 20)[:, k].reshape(-1, LENGTH + 1)[:, 0]
    return rows[rows // 1000 == d].tolist()


def test_an_anneal_reads_the_first_of_its_control_s_text_in_the_same_order(corpus):
    mixtures = {"control": {"a": 0.6, "b": 0.4, "c": 0.0}, "anneal": {"a": 0.3, "b": 0.2, "c": 0.5}}
    trials = [Trial(name, Mixture(own), 5, name) for name, own in mixtures.items()]
    batches = TrialBatches(trials, corpus, Training(80 * LENGTH), batch=4, length=LENGTH)
    for d in (0, 1):
        control, anneal = by_domain(batches, 0, d), by_domain(batches, 1, d)
        assert 2 * len(anneal) == len(control)
        assert anneal == control[: len(anneal)]
