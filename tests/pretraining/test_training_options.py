"""What `training` says of the optimiser and the learning rate, in whole runs on real ranks."""

from __future__ import annotations

import pytest
import torch
from pretrain_runs import CONFIG, STEPS, finished, metrics_of, weights_of, write_config
from torch import nn

from mixopt import pretrain
from mixopt.pretraining.config import TrainingConfig
from mixopt.pretraining.training_step import make_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {"schedule": "wsd", "lr_decay": 6, "lr_decay_shape": "sqrt", "warmup": 3, "eps": 1e-6}


@pytest.fixture(scope="module")
def config(corpus, tmp_path_factory):
    return write_config(
        tmp_path_factory.mktemp("config"),
        corpus=str(corpus.path),
        training={**CONFIG["training"], **OPTIONS},
    )


@pytest.fixture(scope="module")
def whole(context, config, tmp_path_factory):
    return finished(context, config, tmp_path_factory.mktemp("whole") / "run")


def training(**options):
    return TrainingConfig(**{"steps": 100, "batch": 2, "sequence_length": 8, "lr": 3e-3, **options})


def test_numbers_are_read_as_people_write_them():
    for tokens in ("50B", "50e9", 50_000_000_000):
        found = TrainingConfig(batch=8, sequence_length=32, lr="3e-4", tokens=tokens)
        assert (found.steps, found.lr) == (-(-50_000_000_000 // (8 * 32)), 3e-4)
    assert training(steps="2k", betas=["9e-1", "95e-2"]).steps == 2_000


# --- Whole runs ---------------------------------------------------------------------------------


def test_passes_of_any_size_add_up_to_the_same_gradients(config, tmp_path):
    one, whole = tmp_path / "one", tmp_path / "whole"
    for out, micro in ((one, 1), (whole, 8)):
        pretrain(config, out, ["training.steps=10", f"training.micro_batch={micro}"])
    expected = weights_of(whole)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
    losses = [[line.get("loss") for line in metrics_of(out)][:2] for out in (one, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


# --- Learning rates -----------------------------------------------------------------------------


def test_the_learning_rates_of_the_run_are_those_of_the_curve(whole):
    rates = [line["learning_rate"] for line in metrics_of(whole.out) if "loss" in line]
    section = training(**{**OPTIONS, "steps": STEPS})
    assert rates == [section.rates.rate(k - 1) for k in range(4, STEPS + 1, 4)]
    assert rates[3] == 3e-3 > rates[-1]


# --- Groups of weights --------------------------------------------------------------------------


class Tables(nn.Module):
    """Has a table of embeddings, a matrix and a vector."""

    def __init__(self):
        super().__init__()
        self.table, self.linear = nn.Embedding(7, 4), nn.Linear(4, 7)


def decays(model, **options):
    optimizer = make_optimizer(model, training(**options))
    names = {weight: name for name, weight in model.named_parameters()}
    return {
        names[weight]: group["weight_decay"]
        for group in optimizer.param_groups
        for weight in group["params"]
    }


def test_matrices_and_embeddings_decay_and_vectors_do_not():
    assert decays(Tables()) == {"table.weight": 0.1, "linear.weight": 0.1, "linear.bias": 0.0}
