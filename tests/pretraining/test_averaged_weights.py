"""The average of the weights that evaluations may use, against PyTorch's own."""

import pytest
import torch
from pretrain_runs import weights_of, write_config
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mixopt import pretrain
from mixopt.pretraining import joined
from mixopt.pretraining.checkpoints import AVERAGE
from mixopt.pretraining.training_config import TrainingConfig
from mixopt.pretraining.training_step import AveragedWeights, make_optimizer
from mixopt.testing import tiny_corpus

DECAY = 0.8


@pytest.fixture
def trained():
    """Return a model, its average after six steps, and what PyTorch's average is then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    config = TrainingConfig(steps=6, batch=2, sequence_length=4, lr=0.1)
    optimizer = make_optimizer(model, config)
    averaged = AveragedWeights(model, optimizer, DECAY)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    theirs.update_parameters(model)
    for _ in range(6):
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        averaged.update()
        theirs.update_parameters(model)
    return model, optimizer, averaged, theirs


def test_it_is_the_average_of_pytorch(trained):
    model, optimizer, _, theirs = trained
    for weight, their in zip(model.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(optimizer.state[weight][AVERAGE], their.detach())


def test_the_model_computes_with_it_in_the_block_alone(trained):
    model, _, averaged, theirs = trained
    inputs = torch.randn(7, 4)
    before = model(inputs)
    with averaged.in_use():
        torch.testing.assert_close(model(inputs), theirs(inputs))
    assert torch.equal(model(inputs), before)
    assert not torch.allclose(theirs(inputs), before)


def test_a_sharded_model_does_not_keep_what_it_gathered_in_the_block():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    inputs, config = torch.randn(5, 4), TrainingConfig(steps=1, batch=2, sequence_length=4, lr=0.1)
    with joined("cpu"):
        fully_shard(model[0])
        fully_shard(model)
        optimizer = make_optimizer(model, config)
        averaged = AveragedWeights(model, optimizer, DECAY)
        with torch.no_grad():
            at_first = model(inputs)
        model(inputs).sum().backward()
        optimizer.step()
        averaged.update()
        with torch.no_grad():
            after = model(inputs)
            with averaged.in_use():
                assert not torch.allclose(model(inputs), after)
            assert torch.equal(model(inputs), after)
    assert not torch.allclose(at_first, after)


def test_optimisers_steps_leave_it_as_it_is(trained):
    model, optimizer, _, _ = trained
    weight = model[0].weight
    kept = optimizer.state[weight][AVERAGE].clone()
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(optimizer.state[weight][AVERAGE], kept)


def test_a_run_goes_on_with_the_average_of_the_checkpoint_that_it_starts_from(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    config = write_config(tmp_path, prepared_corpus=str(corpus.path))
    averaged = ["training.ema_decay=0.9", "checkpoint.every=0", "training.warmup=0"]
    pretrain(config, tmp_path / "first", [*averaged, "training.steps=5"])
    origin = f"model.from={tmp_path / 'first'}"
    pretrain(config, tmp_path / "second", [*averaged, "training.steps=1", origin])
    before, after = weights_of(tmp_path / "first"), weights_of(tmp_path / "second")
    average, weight = "optimizer.state.embedding.ema", "model.embedding"
    expected = torch.lerp(before[average], after[weight], 0.1)
    torch.testing.assert_close(after[average], expected)


def test_an_average_begins_as_the_weights_of_a_checkpoint_without_one(tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus")
    config = write_config(tmp_path, prepared_corpus=str(corpus.path))
    plain = ["checkpoint.every=0", "training.warmup=0"]
    pretrain(config, tmp_path / "first", [*plain, "training.steps=5"])
    averaged = [*plain, "training.ema_decay=0.9", f"model.from={tmp_path / 'first'}"]
    pretrain(config, tmp_path / "second", [*averaged, "training.steps=1"])
    before, after = weights_of(tmp_path / "first"), weights_of(tmp_path / "second")
    expected = torch.lerp(before["model.embedding"], after["model.embedding"], 0.1)
    torch.testing.assert_close(after["optimizer.state.embedding.ema"], expected)
