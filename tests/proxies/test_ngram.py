import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mixopt_proxies.ngram import NgramProxy
from mixopt_proxies.ngram.ngram_proxy import NgramModel, draw_tokens, held_out_rows

from mixopt.errors import ConfigError, CorpusError
from mixopt.mixture import Mixture
from mixopt.sweeps import Training
from mixopt.testing import check_proxy
from mixopt.trials import Trial

TRAINING = Training(tokens=20_000, eval_tokens=8_000)


def rows(*lists):
    starts = [place == 0 for row in lists for place in range(len(row))]
    return np.array([token for row in lists for token in row]), np.array(starts)


def written_out(lists, context, token, vocab_size):
    """Witten-Bell with dictionaries, as the formula stands."""
    probability = 1 / vocab_size
    for length in range(len(context) + 1):
        recent = tuple(context[len(context) - length :])
        following = Counter(
            row[i + length]
            for row in lists
            for i in range(len(row) - length)
            if tuple(row[i : i + length]) == recent
        )
        total, kinds = following.total(), len(following)
        if total:
            probability = (following[token] + kinds * probability) / (total + kinds)
    return probability


TOKENS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=4)


@settings(deadline=None)
@given(lists=TOKENS, context=st.lists(st.integers(0, 4), max_size=4), order=st.integers(1, 5))
def test_probabilities_are_those_of_the_formula_written_out(lists, context, order):
    model = NgramModel.counted(*rows(*lists), order=order, vocab_size=7)
    recent = context[max(len(context) - order + 1, 0) :]
    expected = [written_out(lists, recent, token, 7) for token in range(7)]
    log = model.log_probabilities(*rows(*([*context, token] for token in range(7))))
    np.testing.assert_allclose(np.exp(log.reshape(7, -1)[:, -1]), expected)


def test_a_vocabulary_of_150000_at_order_6_does_not_overflow():
    row = [149_999] * 6 + [7]
    model = NgramModel.counted(*rows(row, row), order=6, vocab_size=150_000)
    assert math.exp(model.log_probabilities(*rows([149_999] * 5 + [7]))[-1]) > 0.2


def test_it_keeps_the_promises_of_a_proxy():
    check_proxy(NgramProxy)
    assert NgramProxy().tokens_per_second(257, TRAINING) > 0


def test_a_larger_share_of_a_domain_lowers_its_loss(corpus):
    trials = [Trial("t", Mixture({"code": share, "manual": 1 - share}), 0) for share in (0.1, 0.9)]
    results = NgramProxy().train(trials, corpus, TRAINING, lambda progress: None)
    little, much = (result.losses.nats_per_token for result in results)
    assert little["code"] > much["code"]
    assert little["manual"] < much["manual"]


def test_a_domain_without_tokens_to_train_on_and_options_out_of_range_are_refused(corpus):
    code, manual = corpus.domains
    bare = replace(corpus, domains=(code, replace(manual, train=None)))
    trial = Trial("t", Mixture({"code": 0.5, "manual": 0.5}), seed=0)
    with pytest.raises(CorpusError, match="'manual' has a weight but no tokens to train on"):
        NgramProxy().train([trial], bare, TRAINING, lambda progress: None)
    with pytest.raises(
        ConfigError, match="options.order: should be greater than or equal to 1, got 0"
    ):
        NgramProxy(order=0)
    with pytest.raises(ConfigError, match="^proxy.options.window: should be greater .* 2, got 1"):
        NgramProxy(window=1)


# What is drawn --------------------------------------------------------------------------------


def test_a_domain_is_read_whole_before_any_of_it_is_read_again(corpus):
    train = corpus.domains[0].train
    only = Mixture({"code": 1.0, "manual": 0.0})
    drawn = Training(2 * (train.tokens // 64) * 64)
    tokens, starts = draw_tokens(corpus, only, drawn, window=64, rng=np.random.default_rng(0))
    assert starts.reshape(-1, 64)[:, 0].all()
    # Two epochs: every token twice, but for less than a window that does not fill one.
    counts = np.bincount(tokens, minlength=257)
    whole = np.bincount(train.read(0, train.tokens), minlength=257)
    assert np.abs(counts - 2 * whole).sum() <= 2 * 64


def test_held_out_text_is_all_there_is_or_evenly_spaced(corpus):
    domain = corpus.domains[0]
    tokens, starts = held_out_rows(domain, 10**6)
    assert np.array_equal(tokens, domain.validation.read(0, domain.validation.tokens))
    assert starts.sum() == 1
    tokens, starts = held_out_rows(domain, 3_000)
    assert (len(tokens), starts.sum()) == (2_048, 2)
    tail = domain.validation.read(domain.validation.tokens - 1_024, domain.validation.tokens)
    assert np.array_equal(tokens[1_024:], tail)
