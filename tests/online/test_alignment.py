"""Alignment of gradients, in one process."""

from __future__ import annotations

import pytest
import torch

from mixopt.online import gradient_alignment


@pytest.fixture
def weights():
    return [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)]


def along(weight, *direction):
    return (weight * torch.tensor(direction)).sum()


def test_products_are_over_the_mean_norm_of_the_domains_that_were_seen(weights):
    losses = [along(weights[0], 3.0, 4.0), None, along(weights[0], 0.0, 1.0)]
    values = gradient_alignment(losses, along(weights[0], 1.0, 2.0), weights)
    assert values.tolist() == pytest.approx([11 / 3, 0, 2 / 3])


def test_all_parameters_count_also_those_that_a_loss_does_not_use(weights):
    losses = [along(weights[0], 3.0, 4.0) + along(weights[1], 12.0), along(weights[1], 13.0)]
    goal = along(weights[0], 1.0, 0.0) + along(weights[1], 2.0)
    assert gradient_alignment(losses, goal, weights).tolist() == pytest.approx([27 / 13, 2])


def test_a_domain_whose_gradient_vanishes_is_not_in_the_mean(weights):
    losses = [along(weights[0], 0.0, 0.0), along(weights[0], 0.0, 2.0)]
    assert gradient_alignment(losses, along(weights[0], 1.0, 3.0), weights).tolist() == [0, 3]


def test_no_domain_at_all_is_no_alignment(weights):
    goal = along(weights[0], 1.0, 2.0)
    assert gradient_alignment([None, None], goal, weights).tolist() == [0, 0]


def test_gradients_of_low_precision_are_put_together_in_single():
    half = torch.tensor([300.0], dtype=torch.float16, requires_grad=True)
    loss = (half * 300).sum()
    assert gradient_alignment([loss], loss, [half]).tolist() == [300]  # 300**2 is beyond float16
