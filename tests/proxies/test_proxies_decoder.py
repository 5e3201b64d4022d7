"""The decoder as a proxy, on real text; its loss in chunks and attention equal the plain way."""

import math
import re
import sys
from dataclasses import replace

import pytest
import torch
from mixopt_proxies.decoder import (
    CausalLM,
    DecoderProxy,
    DecoderSize,
    Passes,
    StackedWeights,
    has_compiler,
    make_size,
    training_passes as loss_module,
)
from mixopt_proxies.decoder.decoder_stack import RowDocuments, explicit_attention
from mixopt_proxies.decoder.devices import Compiled, should_compile
from mixopt_proxies.decoder.sizes import SIZES
from mixopt_proxies.decoder.training_passes import (
    chunked_losses,
    chunked_training,
    dense_losses,
    write_exponentials,
)
from refusals import refuses

from mixopt.errors import ConfigError, CorpusError, MixoptError
from mixopt.mixture import Mixture
from mixopt.sweeps import Training, make_proxy
from mixopt.system import build_plugin
from mixopt.trials import Trial

CPU = torch.device("cpu")
SMALL = {"layers": 1, "width": 32, "heads": 1, "ff": 64, "sequence_length": 64, "batch": 4}
OPTIONS = {**SMALL, "lr": 0.005, "precision": "float32", "compile": False}
FEW = Training(tokens=5_000, eval_tokens=640, device="cpu")
EVEN = Mixture({"code": 0.5, "manual": 0.5})


def train(corpus, trials, training=FEW, **options):
    reports = []
    results = DecoderProxy(**{**OPTIONS, **options}).train(trials, corpus, training, reports.append)
    return results, reports


def trials_of(*seeds):
    return [Trial(f"t{seed}", EVEN, seed=seed) for seed in seeds]


def test_a_trial_has_a_result_in_order_whose_loss_on_real_text_falls(corpus):
    training = Training(tokens=40_000, eval_every=10_000, eval_tokens=6_400, device="cpu")
    results, reports = train(corpus, trials_of(1, 2), training)
    assert [result.trial for result in results] == ["t1", "t2"]
    assert {result.status for result in results} == {"finished"}
    result = results[0]
    assert result.tokens == 157 * 256  # the steps of 256 tokens that reach 40,000
    assert result.parameters == 257 * 32 + 4 * 32**2 + 3 * 32 * 64 + 3 * 32
    assert reports[-1].done == reports[-1].total == 2 * 157 * 256
    # Bytes of English and Python have an entropy of about 3.3 nats without context.
    assert [losses.tokens for losses in result.curve] == [9984, 19968, 29952, 39936, 40192]
    for name in ("code", "manual", "other_code"):
        course = [losses.nats_per_token[name] for losses in result.curve]
        assert course[-1] < course[0] < math.log(257)
        assert course[-1] < 2.9


LOW = {"precision": "bfloat16", "tied": True}
ROUTED = {"experts": 4, "top_k": 2, "expert_ff": 16, "ff": None}


@pytest.mark.parametrize(("at", "options"), [(0.5, {}), (0.3, LOW), (0.25, ROUTED)])
def test_a_trial_in_two_parts_gives_the_bits_of_the_whole(corpus, tmp_path, at, options):
    whole, _ = train(corpus, trials_of(1, 2, 3), replace(FEW, eval_every=1_000), **options)
    parted = replace(FEW, eval_every=1_000, files=str(tmp_path))
    begun, reports = train(corpus, trials_of(1, 2, 3), replace(parted, part=(0.0, at)), **options)
    assert {result.tokens for result in begun} == {round(at * 20) * 256}
    assert reports[-1].done == reports[-1].total
    # Other members continue, in another order.
    ended, _ = train(corpus, trials_of(3, 1), replace(parted, part=(at, 1.0)), **options)
    assert [result.losses for result in ended] == [whole[2].losses, whole[0].losses]
    assert [*begun[2].curve[:-1], *ended[0].curve][-3:] == list(whole[2].curve[-3:])
    assert str(ended[0].experts) == str(whole[2].experts)


def test_a_trial_of_one_step_is_not_cut(corpus, tmp_path):
    one = Training(tokens=100, device="cpu", files=str(tmp_path), part=(0.0, 0.5))
    message = "sweep.stop.at: 0 of a trial's 1 steps of 256 tokens;"
    refuses(ConfigError, message, train, corpus, trials_of(1), one)
    refuses(ConfigError, message, DecoderProxy(**SMALL).group_size, corpus, one)


def test_a_trial_that_diverges_is_a_result(corpus):
    (result,), _ = train(corpus, trials_of(0), lr=1e30, clip=0.0)
    assert (result.status, result.losses, result.curve) == ("diverged", None, ())
    assert result.reason == (
        "training loss is nan in step 3 of 20 (512 tokens): lower proxy.options.lr or clip"
    )


@pytest.mark.nightly
@pytest.mark.skipif(not has_compiler(CPU), reason="no C++ compiler here")
def test_compiled_code_gives_the_losses_of_eager_code_in_training_and_evaluation(corpus):
    proxy = DecoderProxy(**{**OPTIONS, "compile": True})
    (compiled,) = proxy.train(trials_of(1), corpus, FEW, lambda _: None)
    (eager,), _ = train(corpus, trials_of(1))
    (passes,) = proxy.training._cache.values()
    assert not passes.run.failed
    assert compiled.losses.nats_per_token == pytest.approx(eager.losses.nats_per_token, rel=1e-5)


def test_a_compilation_that_fails_is_said_and_done_without(monkeypatch, caplog):
    def broken(computation, *, dynamic):
        def fails(leaves, tokens):
            raise RuntimeError("no such compiler\nand much more")

        return fails

    monkeypatch.setattr(torch, "compile", broken)
    computation = Compiled(lambda leaves, tokens: leaves["x"] + tokens)
    ones = torch.ones(1)
    assert computation({"x": ones}, ones) == 2
    assert computation.failed
    assert "torch.compile failed, continuing without it: no such compiler" in caplog.messages


def test_runs_are_compiled_on_request_or_if_they_are_long(monkeypatch):
    monkeypatch.setenv("CXX", sys.executable)  # some program
    flops = [1.9e11, 2e11]
    assert [should_compile("auto", CPU, item) for item in flops] == [False, True]
    assert [should_compile(choice, CPU, 2e11) for choice in (True, False)] == [True, False]
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not should_compile("auto", CPU, 1e20)


def test_held_out_text_that_is_too_short_is_named(corpus):
    with pytest.raises(CorpusError, match="domain 'code': held-out text has"):
        train(corpus, trials_of(0), sequence_length=30_000, batch=1)


def test_1m_and_60m_are_those_of_regmix_but_for_the_batch_and_tiny_is_ours():
    size = SIZES["1m"]
    steps = {"sequence_length": 2048, "batch": 8, "lr": 4e-4, "warmup": 100, "weight_decay": 0.1}
    steps |= {"betas": (0.9, 0.95), "clip": 1.0, "schedule": "constant"}
    shape = {"layers": 2, "width": 256, "heads": 8, "ff": 512, "tied": False}
    assert size == DecoderSize(**shape, **steps)
    assert SIZES["60m"] == replace(size, layers=10, width=768, ff=1536)
    ours = {"width": 64, "heads": 2, "ff": 192, "sequence_length": 128, "batch": 4, "tied": True}
    ours |= {"lr": 3.5e-3, "warmup": 0.05, "schedule": "cosine"}
    assert SIZES["tiny"] == DecoderSize(**{**shape, **steps, **ours})
    # 1.31 million weights in the blocks, as in their table; vocabulary 50432, untied.
    assert round(size.trunk(0) / 1e6, 2) == 1.31
    assert size.parameters(50_432) == size.trunk(0) + 2 * 50_432 * 256
    # 6 a weight that a token meets, the head's included, and 6 a width, layer and place.
    token = 6 * (106_816 + 256 * 64 + 2 * 128 * 64)
    assert DecoderProxy().flops_per_token(256) == token
    assert CausalLM(256, 128).flops_per_token() == token + 6 * 2 * 128 * 64


MOE = {"size": "moe-tiny"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "tny"}, "size: 'tny' is not a size; did you mean 'tiny'?"),
        ({"heads": 3}, "heads: 3 must be a divisor of width / 2 = 32"),
        ({"lr": 0}, "lr: should be greater than 0, got 0"),
        ({"clip": -1}, "clip: should be greater than or equal to 0, got -1"),
        ({"layers": 0}, "layers: should be greater than or equal to 1, got 0"),
        ({"tied": 1}, "tied: should be a valid boolean, got 1"),
        ({"lr_floor": 1.5}, "lr_floor: should be less than or equal to 1, got 1.5"),
        ({"experts": 0}, "experts: 0 must be at least 2"),
        ({"experts": 1}, "experts: 1 must be at least 2"),
        (
            {"schedule": "constant", "lr_decay": 0.2},
            "lr_decay: a constant rate has no decay; give schedule: wsd",
        ),
        ({"betas": [0.9, 1.5]}, "betas.1: should be less than 1, got 1.5"),
        ({**MOE, "top_k": 9}, "top_k: 9 must be from 2 to 8, the number of experts"),
        ({**MOE, "width": 12, "heads": 1}, "width: 12 must be a multiple of 8 with experts"),
        ({**MOE, "expert_ff": 12}, "expert_ff: 12 must be a multiple of 8"),
        ({"top_k": 2}, "top_k: 2 has no effect without experts: set experts, or size: moe-tiny"),
        ({**MOE, "ff": 64}, "ff: 64 has no effect with experts: set expert_ff"),
    ],
)
def test_an_option_that_cannot_be_right_is_named(options, message):
    refuses(ConfigError, f"^proxy.options.{re.escape(message)}$", make_proxy, "decoder", options)


def test_an_unknown_option_error_names_the_nearest():
    refuses(ConfigError, r"^proxy\.options\.wdth: unknown field$", DecoderProxy, wdth=3)
    refuses(ConfigError, r"^proxy\.options\.batch: unknown option", CausalLM, 256, 16, batch=4)
    with pytest.raises(ConfigError, match="'decoder': unknown option 'wdth'; did you mean 'width'"):
        make_proxy("decoder", {"wdth": 3})
    with pytest.raises(ConfigError, match="model 'decoder': unknown option 'batch'"):
        build_plugin("model", "decoder", {"vocab_size": 256, "sequence_length": 16, "batch": 4})


@pytest.mark.parametrize(
    ("device", "message"), [("cuda:2", "'cuda:2' is not available (2 GPUs); give auto or cpu")]
)
def test_a_device_that_is_not_here_is_named(corpus, monkeypatch, device, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MixoptError, match=re.escape(f"proxy.device: {message}")):
        train(corpus, trials_of(0), Training(tokens=100, device=device))


@pytest.fixture
def problem(monkeypatch):
    """Hidden states, head and targets of two members, for chunks of 6 tokens and tiles of 64."""
    monkeypatch.setitem(loss_module.CHUNK_LOGITS, "cpu", 7 * 301)
    monkeypatch.setitem(loss_module.TILE_LOGITS, "cpu", 1)
    monkeypatch.setattr(loss_module, "MIN_TILE", 64)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 23, 16, generator=generator, requires_grad=True)
    head = torch.randn(2, 301, 16, generator=generator, requires_grad=True)
    targets = torch.randint(301, (2, 23), generator=generator)
    targets[0, :3] = torch.tensor([0, 63, 300])
    return hidden, head, targets


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.nightly)])
def exponentials(request):
    if request.param and not has_compiler(CPU):
        pytest.skip("no C++ compiler here")
    return Compiled(write_exponentials, dynamic=True) if request.param else write_exponentials


def test_losses_and_gradients_in_chunks_are_the_dense_ones(problem, exponentials):
    found, dense = chunked_training(*problem, exponentials), dense_losses(*problem)
    torch.testing.assert_close(found[0], dense.mean(1).detach())
    torch.testing.assert_close(chunked_losses(*problem, exponentials), dense.detach())
    references = torch.autograd.grad(dense.mean(1).sum(), problem[:2])
    for ours, reference in zip(found[1:], references, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)
    assert not getattr(exponentials, "failed", False)


def test_the_loss_in_chunks_matches_in_bfloat16(problem, exponentials):
    hidden, head, targets = problem
    found = chunked_training(hidden.bfloat16(), head.bfloat16(), targets, exponentials)
    dense = dense_losses(*problem).mean(1)
    # Logits here are up to 15, which bf16 rounds by up to 0.03 a token.
    torch.testing.assert_close(found[0], dense.detach(), rtol=0, atol=0.02)
    references = torch.autograd.grad(dense.sum(), (hidden, head))
    for ours, reference in zip(found[1:], references, strict=True):
        assert (ours.float() - reference).norm() < 0.02 * reference.norm()


def test_logits_that_are_far_apart_overflow_nowhere(exponentials):
    hidden = torch.tensor([[[1.0], [1.0], [-1.0]]])
    head = torch.linspace(-300, 300, 600)[None, :, None]
    problem = hidden, head, torch.tensor([[599, 0, 0]])
    found = chunked_training(*problem, exponentials)
    torch.testing.assert_close(found[0], dense_losses(*problem).mean(1))
    assert all(part.isfinite().all() for part in found)


def test_a_large_vocabulary_trains_the_same_in_chunks_and_dense(monkeypatch):
    size = make_size("tiny", width=16, heads=1, ff=32, sequence_length=8, batch=2)
    weights = StackedWeights(size, 67, [1, 2], device=CPU, dtype=torch.float32)
    tokens = torch.randint(67, (2, 2, 9), generator=torch.Generator().manual_seed(0))
    dense = Passes(size, 67, device=CPU, dtype=torch.float32, compiled=False)
    monkeypatch.setattr("mixopt_proxies.decoder.training_passes.LARGE_VOCABULARY", 67)
    chunked = Passes(size, 67, device=CPU, dtype=torch.float32, compiled=False)
    assert (dense.chunked, chunked.chunked) == (False, True)
    torch.testing.assert_close(
        chunked.gradients(weights.leaves, tokens)[:2], dense.gradients(weights.leaves, tokens)[:2]
    )
    torch.testing.assert_close(
        chunked.evaluated(weights.leaves, tokens)[0], dense.evaluated(weights.leaves, tokens)[0]
    )


def test_explicit_attention_is_the_fused_attention_of_the_documents_of_each_sequence():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 200, 8, generator=generator)
    place = torch.cat([torch.arange(90), torch.arange(110)]).repeat(2, 1)
    hidden = RowDocuments.placed(place).hidden_NTT
    fused = torch.nn.functional.scaled_dot_product_attention
    expected = fused(query, key, value, attn_mask=~hidden[:, None])
    torch.testing.assert_close(explicit_attention(query, key, value, hidden), expected)
