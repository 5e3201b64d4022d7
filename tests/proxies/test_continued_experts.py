"""Trials that continue a model with experts add the loss that its family adds."""

from __future__ import annotations

import copy

import pytest
import torch
from made_base import LENGTH
from mixopt_proxies.continued import ContinuedProxy
from torch.nn import functional

from mixopt.pretraining import ModelConfig, build_model
from mixopt.testing import tiny_corpus
from mixopt.trials import Training

pytest.importorskip("transformers")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
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


def test_the_loss_of_the_family_is_added_times_its_coefficient(tmp_path):
    config = ModelConfig(name="olmoe", options=OLMOE)
    model = build_model(config, vocab_size=257, sequence_length=64, seed=0)
    model.save_pretrained(tmp_path / "olmoe")
    plain = ContinuedProxy(start=str(tmp_path / "olmoe"), **HOW)._ready(tiny_corpus(tmp_path / "c"))
    trainer, annealing = (
        plain._at_start(Training(tokens=4 * LENGTH, device="cpu")),
        plain._annealing,
    )
    by_hand = copy.deepcopy(trainer.model)
    rows_BW = torch.randint(257, (4, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    trainer.step(rows_BW[None])

    optimizer = annealing.optimizer(by_hand.train(), {})
    output = by_hand(rows_BW[:, :-1])
    loss = functional.cross_entropy(output.logits.flatten(0, 1), rows_BW[:, 1:].flatten())
    (loss + 0.5 * output.aux_loss).backward()
    torch.nn.utils.clip_grad_norm_(by_hand.parameters(), annealing.clip)
    optimizer.step()
    for name, weight in by_hand.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], weight, msg=name)
