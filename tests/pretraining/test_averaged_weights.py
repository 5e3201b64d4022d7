"""The average of the weights that evaluations may use, against PyTorch's own."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mixopt.pretraining.averaged_weights import KEY, AveragedWeights
from mixopt.pretraining.optimizer import make_optimizer
from mixopt.pretraining.training_config import TrainingConfig

DECAY = 0.8


@pytest.fixture
def trained():
    """Return a model, its average after six steps, and what PyTorch's average is then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    config = TrainingConfig(steps=6, batch=2, sequence_length=4, lr=0.1)
    optimizer = make_optimizer(model, config)
    averaged = AveragedWeights(model, optimizer, DECAY)
    averaged.begin()
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
        torch.testing.assert_close(optimizer.state[weight][KEY], their.detach())


def test_the_model_computes_with_it_in_the_block_alone(trained):
    model, _, averaged, theirs = trained
    inputs = torch.randn(7, 4)
    before = model(inputs)
    with averaged.in_use():
        torch.testing.assert_close(model(inputs), theirs(inputs))
    assert torch.equal(model(inputs), before)
    assert not torch.allclose(theirs(inputs), before)


def test_it_begins_with_weights_that_were_loaded_after_it_was_made():
    model = nn.Linear(3, 3)
    config = TrainingConfig(steps=6, batch=2, sequence_length=4, lr=0.1)
    optimizer = make_optimizer(model, config)
    averaged = AveragedWeights(model, optimizer, DECAY)
    with torch.no_grad():
        model.weight.fill_(2.0)
    averaged.begin()
    assert torch.equal(optimizer.state[model.weight][KEY], torch.full((3, 3), 2.0))


def test_optimisers_steps_leave_it_as_it_is(trained):
    model, optimizer, _, _ = trained
    weight = model[0].weight
    kept = optimizer.state[weight][KEY].clone()
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(optimizer.state[weight][KEY], kept)
