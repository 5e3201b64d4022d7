"""Every family of transformers that has experts: counts are the ids that reach its experts.

One family of each shape runs by default, all of them nightly. Each token of the batch is a domain
of its own, so that counts are a token's. The truth is the ids that the experts' modules are given
and, where their router returns ids, those as well; where the experts all run (Llama 4) or are given
slices (JetMoE), what their router returns in its own form.

Shapes: T tokens, K experts of a token, E experts.
"""

from typing import Any

import numpy as np
import pytest
import torch
from places import PROJECT
from tiny_experts import NOT_RECOMPUTED, families, inputs_of, tiny_experts
from torch import Tensor, nn

from mixopt.errors import ConfigError, RoutingError
from mixopt.routing import RouterStats, auxiliary_coefficient, find_routers
from mixopt.routing.adapters import FoundRouter

pytestmark = pytest.mark.filterwarnings("ignore")
SHAPES = {
    *("mixtral", "gpt_oss", "gemma4_text", "doge", "jetmoe", "llama4_text", "longcat_flash"),
    *("switch_transformers", "zaya"),
}
BY_SHAPE = [
    family if family in SHAPES else pytest.param(family, marks=pytest.mark.nightly)
    for family in families()
]
assert set(families()) > SHAPES, "transformers writes its configurations in another form"
ROWS, LENGTH = 2, 12


class Reached:
    """The ids that reached the experts of a router; an id of E is no expert."""

    def __init__(self, model: nn.Module, router: FoundRouter) -> None:
        self.router = router
        self.given: list[list[Any]] = []
        self.returned: list[Any] = []
        block = model.get_submodule(router.name.rpartition(".")[0])
        for name, part in block.named_children():
            if name in {"experts", "down_embed"}:
                part.register_forward_pre_hook(self._given, with_kwargs=True)
            if name in {"gate", "router"}:
                self.kind = type(part).__name__
                part.register_forward_hook(self._returned)
        self.kind = getattr(self, "kind", type(block).__name__)

    def _given(self, _: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        if torch._C._current_graph_task_id() == -1:
            self.given.append([part.detach() for part in (*inputs, *named.values())])

    def _returned(self, _: nn.Module, inputs: Any, output: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            self.returned.append(output)

    def ids(self) -> Tensor:
        """Return the ids, shape (T, K)."""
        experts, top_k = self.router.experts, self.router.top_k
        if self.kind == "Llama4Router":
            weights_TE = self.returned[0][0].detach()
            return weights_TE.nonzero()[:, 1].reshape(len(weights_TE), -1)
        if self.kind == "JetMoeTopKGating":
            order, _, _, sizes, _ = self.returned[0]
            ids = torch.empty_like(order)
            ids[order] = torch.repeat_interleave(torch.arange(experts), torch.tensor(sizes))
            return ids.reshape(-1, top_k)
        (given,) = self.given
        if self.kind == "DogeCDMoE":
            return given[0]
        if self.kind == "SwitchTransformersTop1Router":
            chosen_TE = given[1][:, 0]
            return torch.where(chosen_TE.any(-1), chosen_TE.argmax(-1), experts)[:, None]
        ids = next(part for part in given if part.dim() == 2 and not part.is_floating_point())
        output = self.returned[0] if self.returned else ()
        for part in output if isinstance(output, tuple) else ():
            if isinstance(part, Tensor) and not part.is_floating_point():
                assert torch.equal(part.reshape(ids.shape), ids)
        if self.kind == "ZayaRouter":  # a skipped token is given to the first expert, times 0
            weights = next(part for part in given[1:] if part.is_floating_point())
            ids = ids.masked_fill(weights == 0, experts)
        return ids.clamp(max=experts)

    def counts(self, mask: Tensor) -> np.ndarray:
        """Return assignments of each token to each expert and, last, to none."""
        counts_TE = nn.functional.one_hot(self.ids(), self.router.experts + 1).sum(1)
        return np.asarray(counts_TE * mask.reshape(-1, 1))


@pytest.mark.parametrize("family", BY_SHAPE)
def test_counts_are_the_ids_that_reach_the_experts_once_though_layers_are_computed_again(family):
    model = tiny_experts(family)
    if family not in NOT_RECOMPUTED:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    tokens = torch.randint(3, 64, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[1, 8:] = 0  # padding
    reached = [Reached(model, router) for router in find_routers(model)]
    stats = RouterStats.attach(model, [f"token{t}" for t in range(ROWS * LENGTH)])
    with stats.domains(torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH), mask):
        model(**inputs_of(model, tokens, mask))[0].float().sum().backward()
    assert len(stats.total().layers) == len(reached) > 0
    for layer, truth in zip(stats.total().layers, reached, strict=True):
        counts_TE = np.concatenate([layer.counts_DE, layer.dropped_D[:, None]], axis=1)
        assert (counts_TE == truth.counts(mask)).all()


def test_there_are_as_many_families_as_the_page_on_counting_says():
    page = (PROJECT / "docs" / "experts" / "counting.md").read_text(encoding="utf-8")
    assert f"models of {len(BY_SHAPE)} families" in page
    assert set(families()) >= SHAPES


def test_the_coefficient_of_a_family_is_found():
    model = tiny_experts("jetmoe")
    assert auxiliary_coefficient(model) == 0.01
    vars(model.config)["aux_loss_coef"] = "1e-2"
    with pytest.raises(ConfigError, match="aux_loss_coef: '1e-2' is not possible"):
        auxiliary_coefficient(model)
    assert auxiliary_coefficient(tiny_experts("llama4_text")) == 0


def test_a_family_that_is_refused_says_why_when_it_is_attached():
    with pytest.raises(RoutingError, match=r"Inkling2LoopExperts\) is not counted: layers of"):
        tiny_experts("inkling2_loop_text", loop_gate_rank=4)
