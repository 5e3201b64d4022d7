"""Models whose experts would be counted in part or not at all are refused with what to write."""

from types import SimpleNamespace

import pytest
from refusals import refuses
from torch import nn

from mixopt.errors import RoutingError
from mixopt.routing import RouterAdapter, RouterTap, find_routers, has_experts


class NewTopKRouter(nn.Module):
    num_experts, top_k = 4, 2

    def forward(self, x):
        return x[:, :4].topk(2).indices


class KnownExperts(nn.Module):
    """Experts that are called as those of transformers are."""

    num_experts, top_k = 4, 2

    def forward(self, x, top_k_index):
        return x


class NewExperts(nn.Module):
    pass


class MyRouter2(nn.Module):
    """Says in no known way how many experts it has."""


class ForgetGate(nn.Module):
    """A gate: it chooses only where something is there to be chosen."""


class MoEGate(nn.Module):
    """Has its counts of experts under names of its own."""

    def __init__(self):
        super().__init__()
        self.n_experts = 4


ADAPTER = RouterAdapter("NewTopKRouter", read=lambda output: output)


def model(*layers, **config):
    whole = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict(layer) for layer in layers)})
    whole.config = SimpleNamespace(**config)
    return whole


def known():
    return {"experts": KnownExperts()}


def new():
    return {"gate": NewTopKRouter(), "experts": NewExperts()}


def tap():
    return RouterTap(experts=4, top_k=2)


@pytest.mark.parametrize(
    ("layers", "config", "said"),
    [
        ([known(), new()], {}, r"'layers.1.gate' \(NewTopKRouter\) is a router or has experts"),
        ([known(), {"mlp": nn.ModuleDict({"experts": nn.ModuleList()})}], {}, "'layers.1.mlp.exp"),
        ([{"router": MoEGate()}], {}, "'layers.0.router' "),
        ([{"router": MyRouter2()}], {}, "'layers.0.router' "),
        ([{"local_experts": nn.ModuleList([nn.Linear(8, 8)])}], {}, "'layers.0.local_experts' "),
    ],
)
def test_unknown_experts_are_refused_with_the_way_to_count_them(layers, config, said):
    whole = model(*layers, model_type="new_moe", **config)
    assert has_experts(whole)
    line = refuses(RoutingError, rf"^ModuleDict \(family 'new_moe'\): {said}", find_routers, whole)
    for part in (
        "RouterAdapter('MyRouter', read=lambda output: output.expert_ids)",
        "experts: {adapters: ['my_package.routers:MY_ADAPTER']}",
        "put a RouterTap there",
    ):
        assert part in line


@pytest.mark.parametrize(
    ("dense", "config"),
    [
        ({"gate": ForgetGate()}, {}),
        ({"gate": nn.Linear(8, 1)}, {}),
        ({"shared_experts": nn.Linear(8, 8)}, {"num_experts": 2}),
    ],
)
def test_a_model_that_is_dense_is_said_to_have_no_experts(dense, config):
    whole = model(dense, **config)
    assert not has_experts(whole)
    with pytest.raises(RoutingError, match="no router and no experts found; if it has experts, c"):
        find_routers(whole)


def test_what_is_of_images_alone_in_transformers_is_left_out(monkeypatch):
    whole = model(known())
    whole["vision_tower"] = nn.ModuleDict({"experts": NewExperts()})
    refuses(RoutingError, "'vision_tower.experts'", find_routers, whole)
    monkeypatch.setattr(NewExperts, "__module__", "transformers.models.new.modeling_new")
    assert [router.name for router in find_routers(whole)] == ["layers.0.experts"]


@pytest.mark.parametrize(
    ("layers", "adapters", "found"),
    [
        ([known(), new()], [ADAPTER], ["layers.0.experts", "layers.1.gate"]),
        ([known(), {"experts": NewExperts(), "t": tap()}], [], ["layers.0.experts", "layers.1.t"]),
        ([{"router": MyRouter2(), "tap": tap()}], [], ["layers.0.tap"]),
        ([known() | {"gate": NewTopKRouter()}], [ADAPTER], ["layers.0.gate"]),
    ],
)
def test_experts_are_found_by_adapter_tap_or_argument_name(layers, adapters, found):
    routers = find_routers(model(*layers), adapters)
    assert [router.name for router in routers] == found
    assert {(router.experts, router.top_k) for router in routers} == {(4, 2)}


def test_layers_of_an_encoder_and_a_decoder_have_names_of_their_own():
    halves = {name: model(known(), known()) for name in ("encoder", "decoder")}
    assert [(item.layer, item.router) for item in find_routers(nn.ModuleDict(halves))] == [
        (layer, f"{half}.layers.{layer}.experts") for layer in (0, 1) for half in halves
    ]


def test_an_adapter_of_no_class_is_one_line():
    message = "RouterAdapter: router ''; give a class, or the end of its name"
    with pytest.raises(RoutingError, match=message):
        RouterAdapter("", read=lambda output: output)


def test_an_adapter_that_fits_no_module_is_refused_though_other_routers_are_known():
    misspelt = RouterAdapter("NewTopKRoutr", read=ADAPTER.read)
    with pytest.raises(RoutingError) as caught:
        find_routers(model(known(), new()), [ADAPTER, misspelt])
    said = "class of the adapter for 'NewTopKRoutr'; did you mean 'NewTopKRouter'?; give"
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
