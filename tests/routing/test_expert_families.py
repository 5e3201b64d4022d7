"""Every family of transformers that has experts: counts are the ids that reach its experts.

Each token of the batch is a domain of its own, so that counts and probabilities are a token's.
"""

import numpy as np
import pytest
import torch
from tiny_experts import inputs_of, tiny_experts

from mixopt.routing import FAMILIES, RouterStats, find_routers

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

ROWS, LENGTH = 2, 12
DOMAINS = [f"token{t}" for t in range(ROWS * LENGTH)]
# Families whose routers choose one expert, or draw at random, or return no weights of all.
LIMITED = {"phimoe"}


def batch():
    drawn = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 64, (ROWS, LENGTH), generator=drawn)
    mask = torch.ones_like(tokens)
    mask[1, 8:] = 0
    return tokens, torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH), mask


def experts_near(model, router):
    """Return what a router's choice goes into, by the kind of its block."""
    kind = type(router.module).__name__
    if kind == "DogeCDMoE":
        return router.module.down_embed
    return model.get_submodule(router.name.rpartition(".")[0]).experts


class Truth:
    """The ids and weights that reach the experts of a router; an id of E is no expert."""

    def __init__(self, model, router):
        self.router, self.kind = router, type(router.module).__name__
        self.calls = []
        if self.kind in {"JetMoeTopKGating", "Llama4Router"}:
            self.handle = router.module.register_forward_hook(self.returned)
        else:
            self.handle = experts_near(model, router).register_forward_pre_hook(self.given)

    def given(self, module, inputs):
        if torch._C._current_graph_task_id() == -1:
            self.calls.append([part.detach() for part in inputs])

    def returned(self, module, inputs, output):
        if torch._C._current_graph_task_id() == -1:
            self.calls.append(output)

    def read(self):
        (call,) = self.calls
        experts = self.router.experts
        if self.kind == "DogeCDMoE":
            return call[0], None
        if self.kind == "Llama4Router":
            weights_TE = call[0].detach()
            ids_TK = weights_TE.nonzero()[:, 1].reshape(len(weights_TE), -1)
            return ids_TK, weights_TE.gather(1, ids_TK)
        if self.kind == "JetMoeTopKGating":
            order, _, gates, sizes, _ = call
            ids, weights = torch.empty_like(order), torch.empty_like(gates)
            ids[order] = torch.repeat_interleave(torch.arange(experts), torch.tensor(sizes))
            weights[order] = gates.detach()
            return ids.reshape(-1, 2), weights.reshape(-1, 2)
        if self.kind == "SwitchTransformersTop1Router":
            chosen_TE = call[1][:, 0]
            ids_T = torch.where(chosen_TE.any(-1), chosen_TE.argmax(-1), experts)
            return ids_T[:, None], call[2]
        ids, weights = (part for part in call[1:] if part.dim() == 2)
        if self.kind == "ZayaRouter":
            ids = ids.masked_fill(weights == 0, experts)
        return ids.clamp(max=experts), weights

    def counts(self, mask):
        """Return assignments of each token to each expert, and those to none."""
        ids_TK, _ = self.read()
        counts = torch.nn.functional.one_hot(ids_TK, self.router.experts + 1).sum(1)
        return (counts * mask.reshape(-1, 1)).numpy()


def counted(family, *, checkpointed=False):
    """Run a batch forward and backward, and return the model, truths and what was counted."""
    model, (tokens, ids, mask) = tiny_experts(family), batch()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        assert model.is_gradient_checkpointing
    stats = RouterStats.attach(model, DOMAINS)
    truths = [Truth(model, router) for router in find_routers(model)]
    with stats.domains(ids, mask):
        output = model(**inputs_of(model, tokens, mask))
        output[0].float().sum().backward()
    return stats.total(), truths, mask


def assert_counted(total, truths, mask):
    assert len(total.layers) == len(truths) > 0
    for layer, truth in zip(total.layers, truths, strict=True):
        expected_DE = truth.counts(mask)
        np.testing.assert_array_equal(layer.counts_HDE.sum(0), expected_DE[:, :-1])
        np.testing.assert_array_equal(layer.dropped_D, expected_DE[:, -1])


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_the_ids_that_reach_the_experts(family):
    total, truths, mask = counted(family)
    assert_counted(total, truths, mask)
    for layer, truth in zip(total.layers, truths, strict=True):
        check_probabilities(family, layer, truth, mask)


def check_probabilities(family, layer, truth, mask):
    """Check that the weights of the chosen follow from our probabilities, up to a factor."""
    ids_TK, weights_TK = truth.read()
    probability_TE = torch.tensor(layer.probability_DE)
    real = mask.flatten().bool() & (ids_TK < truth.router.experts).all(1)
    assert real.sum() > 3
    chosen_TK = probability_TE[real].gather(1, ids_TK[real])
    np.testing.assert_allclose(layer.chosen_D[real.numpy()], chosen_TK.sum(1), rtol=1e-4)
    assert (probability_TE[real].sum(1) <= 1 + 1e-5).all()
    if not truth.router.idle:
        np.testing.assert_allclose(probability_TE[real].sum(1), 1, rtol=1e-5)
    if weights_TK is None or family in LIMITED:
        return
    weights_TK = weights_TK[real].double()
    if truth.router.top_k == 1:
        np.testing.assert_allclose(chosen_TK, weights_TK, rtol=1e-4)
    shares = chosen_TK / chosen_TK.sum(1, keepdim=True)
    np.testing.assert_allclose(shares, weights_TK / weights_TK.sum(1, keepdim=True), rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_counts_each_token_once(family):
    assert_counted(*counted(family, checkpointed=True))
