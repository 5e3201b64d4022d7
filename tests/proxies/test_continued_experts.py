"""Trials that continue a model with experts are balanced as `mixopt pretrain` balances it."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import yaml
from made_base import LENGTH, base_config
from mixopt_proxies.continued import ContinuedProxy
from torch.nn import functional

from mixopt.config import CorpusConfig
from mixopt.corpus import Corpus, prepare_corpus
from mixopt.mixture import Mixture
from mixopt.pretraining import ModelConfig, build_model, pretrain
from mixopt.routing import ExpertBiases, RouterStats
from mixopt.trials import Training, Trial

pytest.importorskip("transformers")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
CPU = torch.device("cpu")
TRAINING = Training(tokens=1_024, eval_tokens=512, device="cpu")
TRIALS = [Trial(f"t{k}", Mixture({"code": s, "prose": 1 - s}), k) for k, s in enumerate((0.2, 0.8))]
HOW = {"lr": 0.01, "batch": 4, "sequence_length": LENGTH, "precision": "float32"}
OLMOE = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.5,
}
DEEPSEEK = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}


@pytest.fixture(scope="module")
def texts(text_files):
    return {name: text_files[name] for name in ("code", "prose")}


@pytest.fixture(scope="module")
def corpus(texts, tmp_path_factory):
    domains = {name: {"path": str(path)} for name, path in texts.items()}
    config = CorpusConfig.model_validate({"domains": domains})
    return prepare_corpus(config, {}, tmp_path_factory.mktemp("corpus"), fingerprint="f")


def folder_of(name, options, folder):
    """Write a folder of transformers with random weights."""
    config = ModelConfig(name=name, options=options)
    build_model(config, vocab_size=257, sequence_length=64, seed=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def with_loss(tmp_path_factory):
    return folder_of("olmoe", OLMOE, tmp_path_factory.mktemp("olmoe"))


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    return folder_of("deepseek_v3", DEEPSEEK, tmp_path_factory.mktemp("deepseek"))


def stepped(folder, corpus):
    """Take one step as trials do; return the model before and after, and what it was taken on."""
    plain = ContinuedProxy(start=str(folder), **HOW)._ready(corpus)
    model = plain._at_start(CPU)
    before = copy.deepcopy(model)
    for module in before.modules():
        module._forward_hooks.clear()
    rows_BW = torch.randint(257, (4, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    plain._step(model, plain._annealing.optimizer(model, {}), rows_BW, 0.01)
    return before, model, rows_BW, plain._annealing


def trained(start, corpus, trials=TRIALS, **options):
    proxy = ContinuedProxy(start=str(start), **(HOW | options))
    return proxy, proxy.train(trials, corpus, TRAINING, lambda progress: None)


def weights_after(proxy, corpus):
    return {n: w.clone() for n, w in proxy._ready(corpus)._model.state_dict().items()}


def test_the_loss_of_the_family_is_added_times_its_coefficient(with_loss, corpus):
    by_hand, found, rows_BW, annealing = stepped(with_loss, corpus)
    optimizer = annealing.optimizer(by_hand.train(), {})
    output = by_hand(rows_BW[:, :-1])
    loss = functional.cross_entropy(output.logits.flatten(0, 1), rows_BW[:, 1:].flatten())
    (loss + 0.5 * output.aux_loss).backward()
    torch.nn.utils.clip_grad_norm_(by_hand.parameters(), annealing.clip)
    optimizer.step()
    for name, weight in by_hand.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, msg=name)


def test_a_step_moves_the_bias_of_the_family_towards_an_even_load(biased, corpus):
    before, found, rows_BW, _ = stepped(biased, corpus)
    stats = RouterStats.attach(before.train(), ["all"])
    with stats.domains(torch.zeros(4, LENGTH, dtype=torch.int64)), torch.no_grad():
        before(rows_BW[:, :-1])
    expected = ExpertBiases.of(stats.routers)
    assert expected.values().abs().max() == 0
    expected.shift(stats.loads(), 0.02, in_proportion=True)
    moved = found.model.layers[1].mlp.gate.e_score_correction_bias
    assert moved.abs().max() > 0
    torch.testing.assert_close(moved, expected.values())


def test_biases_of_one_trial_are_not_those_of_the_next(biased, corpus):
    proxy, (_, second) = trained(biased, corpus)
    together = weights_after(proxy, corpus)
    proxy, (alone,) = trained(biased, corpus, TRIALS[1:])
    assert together["model.layers.1.mlp.gate.e_score_correction_bias"].abs().max() > 0
    assert second.losses.nats_per_token == alone.losses.nats_per_token
    for name, weight in weights_after(proxy, corpus).items():
        assert torch.equal(together[name], weight), name


def test_evaluating_moves_no_bias(biased, corpus):
    proxy = ContinuedProxy(start=str(biased), **HOW)
    proxy.base_losses(corpus, TRAINING)
    assert proxy._ready(corpus)._balance._stats.loads().sum() == 0


def test_a_base_that_was_trained_without_balance_is_continued_without(texts, tmp_path):
    told = base_config(texts, steps=2, lr=0.001)
    options = DEEPSEEK | {"max_position_embeddings": LENGTH}
    told |= {"model": {"name": "deepseek_v3", "options": options}, "experts": {"balance": "off"}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    pretrain(tmp_path / "base.yaml", tmp_path / "base")
    corpus = Corpus.open(tmp_path / "base" / "corpus")
    proxy, _ = trained(tmp_path / "base", corpus, TRIALS[:1])
    bias = "model.layers.1.mlp.gate.e_score_correction_bias"
    assert weights_after(proxy, corpus)[bias].abs().max() == 0


def test_a_model_that_nothing_balances_is_warned_of_once(tmp_path, corpus, caplog):
    folder = folder_of("olmoe", OLMOE | {"router_aux_loss_coef": 0.0}, tmp_path)
    with caplog.at_level(logging.WARNING, "mixopt.pretraining"):
        trained(folder, corpus)
    (line,) = [one.getMessage() for one in caplog.records if one.name == "mixopt.pretraining"]
    assert line.startswith("olmoe: nothing balances its experts")
