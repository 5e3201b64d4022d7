"""The decoder as a proxy, on real text: the modules and the prose of Python's library."""

import math

import pytest
import torch
from mixopt_proxies.decoder import CausalLM, DecoderProxy, has_compiler
from mixopt_proxies.decoder.devices import Compiled
from mixopt_proxies.decoder.sizes import SIZES

from mixopt.errors import ConfigError, CorpusError, MixoptError
from mixopt.mixture import Mixture
from mixopt.system import build_plugin
from mixopt.trials import Progress, Training, Trial, make_proxy

CPU = torch.device("cpu")
SMALL = {"layers": 1, "width": 32, "heads": 1, "ff": 64, "sequence_length": 64, "batch": 4}
OPTIONS = {**SMALL, "lr": 0.005, "precision": "float32", "compile": False}
TRAINING = Training(tokens=40_000, eval_tokens=6_400, device="cpu")
EVEN = Mixture({"code": 0.5, "manual": 0.5})


def train(corpus, trials, training=TRAINING, **options):
    reports: list[Progress] = []
    results = DecoderProxy(**{**OPTIONS, **options}).train(trials, corpus, training, reports.append)
    return results, reports


def trials_of(*seeds, mixture=EVEN):
    return [Trial(f"t{seed}", mixture, seed=seed) for seed in seeds]


@pytest.fixture(scope="module")
def trained(corpus):
    training = Training(tokens=40_000, eval_every=10_000, eval_tokens=6_400, device="cpu")
    return train(corpus, trials_of(1, 2), training)


def test_training_gives_a_result_for_each_trial_in_order(trained):
    results, reports = trained
    assert [result.trial for result in results] == ["t1", "t2"]
    assert {result.status for result in results} == {"finished"}
    assert results[0].tokens == 157 * 256  # the steps of 256 tokens that reach 40,000
    assert results[0].parameters == 257 * 32 + 4 * 32**2 + 3 * 32 * 64 + 3 * 32
    assert reports[-1].done == reports[-1].total == 2 * 157 * 256


def test_the_loss_on_real_text_falls(trained):
    (result, _), _ = trained
    # Bytes of English and Python have an entropy of about 3.3 nats without context.
    assert [losses.tokens for losses in result.curve] == [9984, 19968, 29952, 39936, 40192]
    for name in ("code", "manual", "other_code"):
        course = [losses.nats_per_token[name] for losses in result.curve]
        assert course[-1] < course[0] < math.log(257)
        assert course[-1] < 2.9


def test_a_trial_that_diverges_is_a_result(corpus):
    few = Training(tokens=5_000, eval_tokens=640, device="cpu")
    (result,), _ = train(corpus, trials_of(0), few, lr=1e30, clip=0.0)
    assert result.status == "diverged"
    assert result.losses is None
    assert "training loss is nan" in result.reason


@pytest.mark.nightly
@pytest.mark.skipif(not has_compiler(CPU), reason="no C++ compiler here")
def test_compiled_code_gives_the_losses_of_eager_code_in_training_and_evaluation(corpus):
    few = Training(tokens=5_000, eval_tokens=640, device="cpu")
    proxy = DecoderProxy(**{**OPTIONS, "compile": True})
    (compiled,) = proxy.train(trials_of(1), corpus, few, lambda _: None)
    (eager,), _ = train(corpus, trials_of(1), few)
    (passes,) = proxy.training._made.values()
    assert not passes._run.failed
    assert compiled.losses.nats_per_token == pytest.approx(eager.losses.nats_per_token, rel=1e-5)


def test_a_compilation_that_fails_is_said_and_done_without(monkeypatch, caplog):
    def broken(computation, *, dynamic):
        def fails(leaves, tokens):
            raise RuntimeError("no such compiler\nand much more")

        return fails

    monkeypatch.setattr(torch, "compile", broken)
    computation = Compiled(lambda leaves, tokens: leaves["x"] + tokens)
    one = torch.ones(1)
    assert computation({"x": one}, one) == 2
    assert computation.failed
    assert "torch.compile failed, continuing without it: no such compiler" in caplog.messages


def test_held_out_text_that_is_too_short_is_named(corpus):
    with pytest.raises(CorpusError, match="domain 'code': held-out text has"):
        train(corpus, trials_of(0), sequence_length=30_000, batch=1)


def test_1m_is_the_shape_of_regmix():
    size = SIZES["1m"]
    assert (size.layers, size.width, size.heads, size.ff) == (2, 256, 8, 512)
    # 1.31 million weights in the blocks, as in their table; vocabulary 50432, untied.
    assert round(size.trunk_parameters() / 1e6, 2) == 1.31
    assert size.parameters(50_432) == size.trunk_parameters() + 2 * 50_432 * 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "tny"}, "proxy.options.size: 'tny' is not a size; did you mean 'tiny'?"),
        ({"heads": 3}, "proxy.options.heads: 3 must be a divisor of width / 2 = 32"),
        ({"lr": "fast"}, "proxy.options.lr: should be a valid number, got 'fast'"),
        (
            {"schedule": "constant", "lr_decay": 0.2},
            "proxy.options.lr_decay: a constant rate has no decay; give schedule: wsd",
        ),
        ({"betas": [0.9, 1.5]}, "proxy.options.betas.1: should be less than 1, got 1.5"),
        (
            {"precision": "fp8"},
            "proxy.options.precision: should be 'auto', 'float32' or 'bfloat16', got 'fp8'",
        ),
        ({"wdth": 3}, "proxy 'decoder': unknown option 'wdth'; did you mean 'width'?"),
    ],
)
def test_an_option_that_cannot_be_right_is_named(options, message):
    with pytest.raises(ConfigError) as error:
        make_proxy("decoder", options)
    assert message in str(error.value)


def test_an_option_that_there_is_not_is_answered_with_the_nearest_from_python_too():
    with pytest.raises(ConfigError, match=r"options\.wdth: unknown option; did you mean 'width'"):
        DecoderProxy(wdth=3)
    with pytest.raises(ConfigError, match=r"proxy\.options\.batch: unknown option"):
        CausalLM(256, 16, batch=4)
    with pytest.raises(ConfigError, match="model 'decoder': unknown option 'batch'"):
        build_plugin("model", "decoder", {"vocab_size": 256, "sequence_length": 16, "batch": 4})


def test_a_device_that_is_not_here_is_named(corpus):
    for device, message in (
        ("cuda:99", "'cuda:99' is not available"),
        ("mps", "'mps' is not a device"),
        ("cpu:", "'cpu:' is not a device"),
    ):
        with pytest.raises(MixoptError, match=message):
            train(corpus, trials_of(0), Training(tokens=100, device=device))
