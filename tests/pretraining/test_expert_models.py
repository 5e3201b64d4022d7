"""What training gives models of transformers with experts, and what of them a token meets."""

from __future__ import annotations

import pytest
import torch

from mixopt.errors import ConfigError
from mixopt.pretraining import PretrainConfig
from mixopt.pretraining.config import ModelConfig
from mixopt.pretraining.models import build_model, flops_per_token
from mixopt.pretraining.parallel import Ranks
from mixopt.pretraining.training_step import balance_of

pytest.importorskip("transformers")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
LENGTH, IDS = 8, 64
TRAINING = {"steps": 1, "batch": 1, "sequence_length": LENGTH, "lr": 1e-3}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "moe_intermediate_size": 16,
}
NARROW = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2}
TEXT = {
    **SIZES,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "layer_types": ["full_attention"] * 2,
    "router_aux_loss_coef": 0.25,
}
ATTENTION = {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}
DBRX = {"d_model": 32, "n_heads": 4, "n_layers": 2, "attn_config": ATTENTION}


def built(name, options):
    config = ModelConfig(name=name, options=options)
    return build_model(config, vocab_size=IDS, sequence_length=LENGTH, seed=0)


# --- A configuration within another --------------------------------------------------------------


def test_a_text_model_within_another_has_the_sizes_of_the_corpus_and_is_balanced(caplog):
    chosen = {"model": {"name": "qwen3_5_moe", "options": {"text_config": TEXT}}}
    config = PretrainConfig.model_validate({**chosen, "corpus": "x", "training": TRAINING})
    model = built("qwen3_5_moe", {"text_config": TEXT})
    assert (model.config.vocab_size, model.config.max_position_embeddings) == (IDS, LENGTH)
    balance = balance_of(model, config, Ranks(0, 1, torch.device("cpu")), None)
    output = model.train()(torch.arange(16).view(2, 8))
    torch.testing.assert_close(balance.added_loss(output), 0.25 * output.aux_loss)
    assert "balances" not in caplog.text


def test_what_is_said_of_a_text_model_within_another_names_its_own_field():
    options = {"text_config": {**TEXT, "router_aux_loss_coef": -1.0}}
    chosen = {"model": {"name": "qwen3_5_moe", "options": options}, "training": TRAINING}
    config = PretrainConfig.model_validate(chosen | {"corpus": "x"})
    said = "model.options.text_config.router_aux_loss_coef: -1.0 is not possible"
    with pytest.raises(ConfigError, match=said):
        balance_of(built("qwen3_5_moe", options), config, Ranks(0, 1, torch.device("cpu")), None)
    small = {"text_config": {**TEXT, "vocab_size": 10}}
    with pytest.raises(ConfigError, match="model.options.text_config.vocab_size: 10, and the"):
        built("qwen3_5_moe", small)


# --- What a token meets --------------------------------------------------------------------------


def flops_of(model):
    """Return the operations of weights alone."""
    config = model.config
    attention = 12.0 * config.num_hidden_layers * config.hidden_size * LENGTH
    return flops_per_token(model, LENGTH) - attention


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("qwen3_5_moe", {"text_config": TEXT}, ".experts."),
        (
            "dbrx",
            {**DBRX, "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2}},
            ".experts.",
        ),
        (
            "aria_text",
            {**NARROW, "num_attention_heads": 4, "moe_num_experts": 4, "moe_topk": 2},
            ".experts.",
        ),
        ("jetmoe", {**NARROW, "num_local_experts": 4, "kv_channels": 8}, "put_linear."),
    ],
)
def test_a_token_meets_the_share_of_the_experts_that_it_is_given(name, options, part):
    model = built(name, options)
    sizes = {one: weight.numel() for one, weight in model.named_parameters()}
    table = model.get_input_embeddings().weight.numel()
    tied = getattr(model.config, "tie_word_embeddings", False)
    experts = sum(size for one, size in sizes.items() if part in one)
    assert experts > 0
    met = sum(sizes.values()) - (0 if tied else table) - experts / 2
    assert flops_of(model) == pytest.approx(6 * met)
