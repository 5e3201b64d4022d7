"""Experts of transformers' families are balanced by their auxiliary loss, on any ranks."""

import logging
import math
import re

import pytest
import torch
from made_models import SMALL
from pretrain_runs import CONFIG, checkpoints, finished, metrics_of, write_config

from mixopt import pretrain
from mixopt.errors import ConfigError
from mixopt.pretraining import ModelConfig, added_loss, build_model
from mixopt.pretraining.checkpoints import read_tensors
from mixopt.pretraining.models import flops_per_token
from mixopt.routing import auxiliary_coefficient

pytest.importorskip("transformers")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
LENGTH, TOP_K = 8, 2
OLMOE = SMALL["olmoe"] | {"router_aux_loss_coef": 0.5}
NARROW = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
FFN = {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2, "moe_loss_weight": 0.25}
ATTENTION = {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0}
DBRX = {"d_model": 16, "n_heads": 2, "n_layers": 2, "attn_config": ATTENTION, "ffn_config": FFN}
JETMOE = {"aux_loss_coef": 0.25, "num_local_experts": 4, "kv_channels": 8, **NARROW}


def built(name, options):
    config = ModelConfig(name=name, options=options)
    return build_model(config, vocab_size=64, sequence_length=LENGTH, seed=0)


@pytest.fixture
def config(corpus, tmp_path):
    model = {"name": "olmoe", "options": OLMOE}
    training = {**CONFIG["training"], "steps": 4}
    return write_config(tmp_path, corpus=str(corpus.path), model=model, training=training)


def test_the_loss_of_a_family_is_added_times_its_own_coefficient_of_0_or_more():
    model = built("dbrx", DBRX).train()
    output = model(torch.arange(16).view(2, 8))
    assert output.aux_loss > 0
    added = added_loss(model, output, auxiliary_coefficient(model))
    torch.testing.assert_close(added, 0.25 * output.aux_loss)
    assert added.requires_grad
    message = "router_aux_loss_coef: .* is not possible; it must be 0 or more"
    with pytest.raises(ConfigError, match=message):
        auxiliary_coefficient(built("olmoe", OLMOE | {"router_aux_loss_coef": math.nan}))
    assert auxiliary_coefficient(torch.nn.Linear(2, 2)) == 0.0


def test_auxiliary_losses_are_logged_apart_and_a_model_without_one_warns(config, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "mixopt.pretraining")
    pretrain(config, tmp_path / "run")
    assert caplog.messages == []
    pretrain(config, tmp_path / "off", ["model.options.router_aux_loss_coef=0.0"])
    (said,) = caplog.messages
    assert re.match(r"olmoe: no auxiliary loss balances its experts, .*; check with [^\n]*$", said)
    line, off = (metrics_of(tmp_path / name)[-1] for name in ("run", "off"))
    # Hugging Face's loss is the number of experts of a token where the load is even, and no less.
    assert 0.5 * TOP_K <= line["auxiliary_loss"] < 0.5 * TOP_K * 1.2
    assert line["loss"] == pytest.approx(math.log(257), abs=0.2)
    assert "auxiliary_loss" not in off


@pytest.mark.nightly
def test_two_ranks_are_one_with_a_loss_of_the_same_passes(context, config, tmp_path):
    """A pass's loss is of its own tokens: what a rank has of a batch is a pass of one process."""
    pretrain(config, tmp_path / "one")
    finished(context, config, tmp_path / "two", ranks=2, overrides=["parallel=fsdp"])
    found, expected = (read_tensors(checkpoints(tmp_path / n)[-1], "") for n in ("two", "one"))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=0, msg=name)
    for line, other in zip(*(metrics_of(tmp_path / name) for name in ("one", "two")), strict=True):
        added = line.get("auxiliary_loss", 0.0)
        assert other.get("auxiliary_loss", 0.0) == pytest.approx(added, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "part"), [("dbrx", DBRX, ".experts."), ("jetmoe", JETMOE, "put_linear.")]
)
def test_a_token_meets_the_share_of_the_experts_that_it_is_given(name, options, part):
    model = built(name, options)
    config, sizes = model.config, {n: weight.numel() for n, weight in model.named_parameters()}
    attention = 12.0 * config.num_hidden_layers * config.hidden_size * LENGTH
    tied = getattr(config, "tie_word_embeddings", False)
    table = 0 if tied else model.get_input_embeddings().weight.numel()
    experts = sum(size for one, size in sizes.items() if part in one)
    assert experts > 0
    met = sum(sizes.values()) - table - experts / 2
    assert flops_per_token(model, LENGTH) - attention == pytest.approx(6 * met)
