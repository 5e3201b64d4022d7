"""Learning curves: the text they are measured on; they do not change a trial's losses."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from mixopt_proxies.decoder import DecoderProxy
from mixopt_proxies.decoder.held_out_loss import corrected_curve, sample_size
from mixopt_proxies.ngram import NgramProxy
from mixopt_proxies.ngram.ngram_proxy import NgramModel

from mixopt.mixture import Mixture
from mixopt.sweeps import Training
from mixopt.trials import Losses, Trial

PLAIN = Training(tokens=20_480, eval_tokens=4_096, device="cpu")
CURVED = replace(PLAIN, curve_points=9)
SHAPE = {"width": 32, "heads": 2, "ff": 64, "sequence_length": 64, "batch": 4}
SMALL = {"size": "tiny", "compile": False, "precision": "float32", **SHAPE}
EVEN = Mixture({"code": 0.5, "manual": 0.5})


@pytest.mark.parametrize("make", [NgramProxy, partial(DecoderProxy, **SMALL)])
def test_losses_are_the_same_with_a_curve_which_falls_to_them(make, corpus):
    trials, proxy = (
        [Trial(name, EVEN, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))],
        make(),
    )
    curved, plain = (proxy.train(trials, corpus, item, lambda _: None) for item in (CURVED, PLAIN))
    assert [item.losses for item in curved] == [item.losses for item in plain]
    assert [len(item.curve) for item in plain] == [1, 1, 1]
    assert curved[0].curve == curved[1].curve != curved[2].curve
    for result in curved:
        assert result.curve[-1] == result.losses
        for name, last in result.losses.nats_per_token.items():
            assert result.curve[0].nats_per_token[name] > last
            assert result.curve[0].bits_per_byte[name] > result.losses.bits_per_byte[name]


def test_a_point_of_an_n_gram_s_curve_is_the_model_of_so_many_tokens():
    draw = np.random.default_rng(0)
    shares = np.arange(1, 31) / np.arange(1, 31).sum()
    tokens_T, starts_T = draw.choice(30, size=3000, p=shares), np.arange(3000) % 97 == 0
    sample_S, rows_S = draw.choice(30, size=400, p=shares), np.arange(400) % 64 == 0
    ends = [300 * number for number in range(1, 11)]
    model = NgramModel.counted(tokens_T, starts_T, order=4, vocab_size=30)
    found_ES = model.curve(ends, sample_S, rows_S)
    for end, found_S in zip(ends, found_ES, strict=True):
        part = NgramModel.counted(tokens_T[:end], starts_T[:end], order=4, vocab_size=30)
        assert np.array_equal(found_S, part.log_probabilities(sample_S, rows_S))


def test_there_are_fewer_points_where_one_window_of_each_domain_costs_too_much():
    assert sample_size(domains=60, batch=4, steps=500, points=9) == (1, 2)
    assert sample_size(domains=60, batch=4, steps=5_000, points=9) == (1, 5)
    assert sample_size(domains=60, batch=4, steps=50_000, points=9) == (6, 9)


def test_points_are_corrected_by_the_sample_s_difference_at_the_end():
    sampled, sampled_end, end = (
        [Losses(tokens, {"web": nats}, {"web": 2 * nats})]
        for tokens, nats in ((1, 3.0), (2, 2.0), (2, 2.25))
    )
    ((point,),) = corrected_curve([sampled], sampled_end, end)
    assert point == Losses(1, {"web": 3.25}, {"web": 6.5})
