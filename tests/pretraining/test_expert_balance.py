"""Experts of transformers' families are balanced as their family is, on any number of ranks."""

from __future__ import annotations

import logging
import math
import shutil
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_runs import (
    BATCH,
    CONFIG,
    LENGTH,
    Job,
    assert_same_weights,
    checkpoints,
    finished,
    lines_of,
    log_of,
    metrics_of,
    step_of,
    weights_of,
    write_config,
)
from torch import nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load

from mixopt import Corpus, pretrain
from mixopt.errors import ConfigError, RunError
from mixopt.pretraining import PretrainConfig
from mixopt.pretraining.models import build_model
from mixopt.pretraining.parallel import Ranks
from mixopt.pretraining.training_step import RATE, balance_of
from mixopt.routing import ExpertRecord
from mixopt.testing import tiny_corpus

pytest.importorskip("transformers")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
STEPS, TOP_K = 12, 2
DEEPSEEK = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 8,
    "num_experts_per_tok": TOP_K,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
OLMOE = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_experts": 8,
    "num_experts_per_tok": TOP_K,
    "router_aux_loss_coef": 0.5,
}
FFN = {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2, "moe_loss_weight": 0.25}
DBRX = {
    "d_model": 16,
    "n_heads": 2,
    "n_layers": 2,
    "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
    "ffn_config": FFN,
}
NARROW = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
BIASED = {"name": "deepseek_v3", "options": DEEPSEEK}
WITH_LOSS = {"name": "olmoe", "options": OLMOE}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


def config_of(corpus, folder, model, **experts) -> Path:
    parts = {
        "corpus": str(corpus.path),
        "model": model,
        "training": {**CONFIG["training"], "steps": STEPS},
        "experts": {"every": 1, **experts},
    }
    return write_config(folder, **parts)


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory) -> Path:
    return config_of(corpus, tmp_path_factory.mktemp("config"), BIASED, bias_rate=0.01)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    """An undisturbed run on one process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    pretrain(config, out)
    return out


def biases_of(out):
    found = weights_of(out)
    names = [n for n in found if n.endswith("gate.e_score_correction_bias") and "optim" not in n]
    return {int(name.split("layers.")[1].split(".")[0]): found[name].numpy() for name in names}


def counts_of(out):
    """Return the assignments of each step, by layer."""
    windows = ExpertRecord(out / "experts").windows()
    layers = zip(*(window.assignments.layers for window in windows), strict=True)
    return {layer[0].layer: np.stack([one.counts_DE.sum(0) for one in layer]) for layer in layers}


def assert_close_weights(out, whole):
    """Weights, biases and the optimiser's state are alike; ranks may each have written a part."""
    expected = weights_of(whole)
    found = {name: torch.full_like(weight, math.nan) for name, weight in expected.items()}
    load(found, storage_reader=HuggingFaceStorageReader(str(checkpoints(out)[-1])), no_dist=True)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=0, msg=name)


# --- The rule ------------------------------------------------------------------------------------


def test_biases_are_moved_by_the_load_of_all_passes_of_each_step(whole):
    counts, biases = counts_of(whole), biases_of(whole)
    assert sorted(biases) == [1, 2]
    for layer, bias_E in biases.items():
        loads_SE = counts[layer]
        assert (loads_SE.sum(1) == BATCH * LENGTH * TOP_K).all()
        moved_E = 0.01 * np.sign(loads_SE.mean(1, keepdims=True) - loads_SE).sum(0)
        np.testing.assert_allclose(bias_E, moved_E, atol=1e-6)
        assert np.abs(bias_E).max() > 0.02


def test_lines_say_how_large_biases_are_and_how_far_they_came(whole):
    counts, before = counts_of(whole), {1: 0.0, 2: 0.0}
    lines = [line for line in metrics_of(whole) if "expert_bias" in line]
    assert [line["step"] for line in lines] == list(range(4, STEPS + 1, 4))
    for line in lines:
        after = {
            layer: 0.01 * np.sign(BATCH * LENGTH * TOP_K / 8 - loads[: line["step"]]).sum(0)
            for layer, loads in counts.items()
        }
        largest = max(np.abs(bias).max() for bias in after.values())
        moved = np.mean([np.abs(after[layer] - before[layer]).mean() for layer in after])
        assert line["expert_bias"]["largest"] == pytest.approx(largest, rel=1e-5)
        assert line["expert_bias"]["moved"] == pytest.approx(moved, rel=1e-4)
        before = after


def test_balance_is_the_same_where_experts_are_not_counted(whole, config, tmp_path):
    pretrain(config, tmp_path / "run", ["experts.enabled=false"])
    assert not (tmp_path / "run/experts").exists()
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(whole))
    assert metrics_of(tmp_path / "run") == metrics_of(whole)


def test_blocks_that_are_computed_again_count_once(whole, config, tmp_path):
    pretrain(config, tmp_path / "run", ["training.activation_checkpointing=true"])
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(whole))


def test_a_step_that_was_skipped_moves_no_bias(config, tmp_path, monkeypatch):
    from mixopt.pretraining.training_step import TrainingStep

    agree, skipped = TrainingStep._agree, [3, 4]
    taken = iter(range(STEPS))

    def refuse(self, parts, norm, **asked):
        finite, *rest = agree(self, parts, norm, **asked)
        return finite and next(taken) not in skipped, *rest

    monkeypatch.setattr(TrainingStep, "_agree", refuse)
    pretrain(config, tmp_path / "run")
    counts = counts_of(tmp_path / "run")
    for layer, bias_E in biases_of(tmp_path / "run").items():
        loads_SE = np.delete(counts[layer], skipped, axis=0)
        moved_E = 0.01 * np.sign(loads_SE.mean(1, keepdims=True) - loads_SE).sum(0)
        np.testing.assert_allclose(bias_E, moved_E, atol=1e-6)


def test_off_moves_nothing_and_says_nothing(config, tmp_path, caplog):
    off = ["experts={balance: off, every: 1}", "training.steps=3"]
    pretrain(config, tmp_path / "run", off)
    assert all((bias == 0).all() for bias in biases_of(tmp_path / "run").values())
    assert not any("expert_bias" in line for line in metrics_of(tmp_path / "run"))
    assert "balances" not in caplog.text


def test_without_a_rate_biases_move_in_proportion(corpus, tmp_path):
    pretrain(config_of(corpus, tmp_path, BIASED), tmp_path / "run")
    counts = counts_of(tmp_path / "run")
    for layer, bias_E in biases_of(tmp_path / "run").items():
        off_SE = 1 - counts[layer] / counts[layer].mean(1, keepdims=True)
        assert (off_SE < -1).any(), "some expert has more than twice the mean"
        moved_E = RATE * np.clip(off_SE, -1, 1).sum(0)
        np.testing.assert_allclose(bias_E, moved_E, atol=1e-6)


# --- A loss that is added ------------------------------------------------------------------------


def test_what_a_family_adds_is_beside_the_loss_of_tokens(corpus, tmp_path):
    config = config_of(corpus, tmp_path, WITH_LOSS)
    pretrain(config, tmp_path / "run", ["training.steps=4"])
    pretrain(config, tmp_path / "off", ["training.steps=4", "experts.balance=off"])
    line, off = (metrics_of(tmp_path / name)[-1] for name in ("run", "off"))
    # Hugging Face's loss is the number of experts of a token where the load is even, and no less.
    assert 0.5 * TOP_K <= line["auxiliary_loss"] < 0.5 * TOP_K * 1.2
    assert line["loss"] == pytest.approx(math.log(257), abs=0.2)
    assert "auxiliary_loss" not in off


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dbrx", DBRX),
        ("jetmoe", {"aux_loss_coef": 0.25, "num_local_experts": 4, "kv_channels": 8, **NARROW}),
    ],
)
def test_a_coefficient_is_found_under_the_familys_own_name(name, options):
    chosen = {"model": {"name": name, "options": options}, "training": CONFIG["training"]}
    config = PretrainConfig.model_validate(chosen | {"corpus": "x"})
    model = build_model(config.model, vocab_size=64, sequence_length=8, seed=0)
    balance = balance_of(model, config, Ranks(0, 1, torch.device("cpu")), None)
    output = model.train()(torch.arange(16).view(2, 8))
    assert output.aux_loss > 0
    torch.testing.assert_close(balance.added_loss(output), 0.25 * output.aux_loss)
    assert balance.added_loss(output).requires_grad


# --- Ranks ---------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.nightly), "fsdp"])
def test_two_ranks_are_one_with_biases(parallel, whole, context, config, tmp_path):
    out = tmp_path / "run"
    finished(context, config, out, ranks=2, overrides=[f"parallel={parallel}"])
    for layer, counts_SE in counts_of(whole).items():
        assert np.array_equal(counts_of(out)[layer], counts_SE)
    assert_close_weights(out, whole)


@pytest.mark.nightly
def test_two_ranks_are_one_with_a_loss_of_the_same_passes(context, corpus, tmp_path):
    """A pass's loss is of its own tokens: what a rank has of a batch is a pass of one process."""
    config = config_of(corpus, tmp_path, WITH_LOSS)
    pretrain(config, tmp_path / "one")
    finished(context, config, tmp_path / "two", ranks=2, overrides=["parallel=fsdp"])
    for layer, counts_SE in counts_of(tmp_path / "one").items():
        assert np.array_equal(counts_of(tmp_path / "two")[layer], counts_SE)
    assert_close_weights(tmp_path / "two", tmp_path / "one")
    added = [
        [line["auxiliary_loss"] for line in metrics_of(tmp_path / name) if "loss" in line]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(*added, atol=1e-6)


@pytest.mark.nightly
def test_compiled_blocks_are_counted_and_balanced(whole, config, tmp_path, monkeypatch):
    """Traced as Inductor does, and not compiled, which takes minutes."""
    compiled = nn.Module.compile
    traced = partialmethod(compiled, backend="aot_eager")
    monkeypatch.setattr(nn.Module, "compile", traced)
    out = tmp_path / "run"
    torch.compiler.reset()
    pretrain(config, out, ["training.compile=true"])
    torch.compiler.reset()
    for layer, bias_E in biases_of(out).items():
        loads_SE = counts_of(out)[layer]
        assert (loads_SE.sum(1) == BATCH * LENGTH * TOP_K).all()
        assert np.array_equal(loads_SE[0], counts_of(whole)[layer][0])
        moved_E = 0.01 * np.sign(loads_SE.mean(1, keepdims=True) - loads_SE).sum(0)
        np.testing.assert_allclose(bias_E, moved_E, atol=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("signal", ["terminate", "kill"])
def test_a_run_with_an_estimator_that_was_ended_has_the_record_of_one_that_was_not(
    signal, context, corpus, tmp_path
):
    config = config_of(corpus, tmp_path, BIASED, every=4, bias_rate=0.01)
    estimator = "estimator={name: ado, observe_every: 2}"
    pretrain(config, tmp_path / "whole", [estimator, "mixture={anchor: natural}"])
    job = Job(context, config, tmp_path / "run", 1, [estimator, "mixture={anchor: natural}"])
    job.until_true((tmp_path / "run/experts/counts/part-00000008.parquet").exists)
    getattr(job.processes[0], signal)()
    job.wait()
    assert step_of(tmp_path / "run") < STEPS
    finished(context, config, tmp_path / "run", 1, [estimator, "mixture={anchor: natural}"])
    whole, run = tmp_path / "whole", tmp_path / "run"
    for layer, counts_SE in counts_of(whole).items():
        assert np.array_equal(counts_of(run)[layer], counts_SE)
    assert log_of(run) == log_of(whole)
    assert metrics_of(run) == metrics_of(whole)
    assert_same_weights(weights_of(run), weights_of(whole))


# --- What cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "override", "message"),
    [
        (WITH_LOSS, "experts.balance=bias", "experts.balance: bias: 'olmoe' has no bias"),
        (WITH_LOSS, "experts.bias_rate=0.1", "experts.bias_rate: 0.1 has no effect: no bias of"),
        (BIASED, "experts.balance=auxiliary", "'deepseek_v3' returns no auxiliary loss; it has a"),
        (BIASED, "experts={balance: off, bias_rate: 0.1}", "experts.bias_rate: 0.1 has no effect"),
        (
            {"name": "experts_job:TinyExperts"},
            "experts.balance=bias",
            "experts.balance: bias: 'experts_job:TinyExperts' has neither a bias nor",
        ),
        (
            {"name": "decoder", "options": {"size": "moe-tiny", "width": 32}},
            "experts.balance=off",
            "experts.balance: off: 'decoder' balances its experts itself",
        ),
        (
            {"name": "olmoe", "options": {**OLMOE, "router_aux_loss_coef": 0.0}},
            "experts.balance=auxiliary",
            "experts.balance: auxiliary: model.options.router_aux_loss_coef is 0; give another",
        ),
        (
            {"name": "olmoe", "options": {**OLMOE, "output_router_logits": False}},
            "experts.balance=auxiliary",
            "there is no auxiliary loss with model.options.output_router_logits: false; give",
        ),
        (
            {"name": "olmoe", "options": {**OLMOE, "router_aux_loss_coef": -0.1}},
            "experts.balance=auto",
            "model.options.router_aux_loss_coef: -0.1 is not possible; it must be 0 or more",
        ),
        (
            {"name": "olmoe", "options": {**OLMOE, "router_aux_loss_coef": math.nan}},
            "experts.balance=auto",
            "model.options.router_aux_loss_coef: nan is not possible; it must be 0 or more",
        ),
        (BIASED, "experts.balance=evenly", "experts.balance: "),
        (BIASED, "experts.bias_rate=2", "experts.bias_rate: "),
    ],
)
def test_a_balance_that_the_model_has_not_is_refused(corpus, tmp_path, model, override, message):
    config = config_of(corpus, tmp_path, model)
    with pytest.raises(ConfigError) as error:
        pretrain(config, tmp_path / "run", [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_that_balances_is_a_warning_in_a_line(corpus, tmp_path, caplog):
    options = {**OLMOE, "router_aux_loss_coef": 0.0}
    config = config_of(corpus, tmp_path, {"name": "olmoe", "options": options})
    with caplog.at_level(logging.WARNING, "mixopt.pretraining"):
        pretrain(config, tmp_path / "run", ["training.steps=1"])
    (said,) = [r.getMessage() for r in caplog.records if r.name == "mixopt.pretraining"]
    assert said.startswith(
        "olmoe: nothing balances its experts: model.options.router_aux_loss_coef"
    )
    assert "\n" not in said


def test_a_run_goes_on_with_its_balance_alone(whole, config, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    with pytest.raises(RunError, match="started with experts.bias_rate 0.01, and here it is 0.02"):
        pretrain(config, out, ["experts.bias_rate=0.02"])
    pretrain(config, out, ["experts.every=2"])


def test_lines_are_those_of_a_run_that_was_not_stopped(whole, config, tmp_path):
    """Checkpoints lie between the lines, and what a line is compared with is in them."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoints/step-00000012")
    pretrain(config, out)
    assert metrics_of(out) == metrics_of(whole)
    assert lines_of(out / "experts/scalars.jsonl") == lines_of(whole / "experts/scalars.jsonl")
    assert_same_weights(weights_of(out), weights_of(whole))
