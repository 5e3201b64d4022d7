"""Models whose experts would be counted in part or not at all are refused with what to write."""

from types import SimpleNamespace

import pytest
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
    """Has numbers of its own names."""

    def __init__(self):
        super().__init__()
        self.n_experts = 4


def model(*layers, **config):
    whole = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict(layer) for layer in layers)})
    whole.config = SimpleNamespace(**config)
    return whole


def known():
    return {"experts": KnownExperts()}


def new():
    return {"gate": NewTopKRouter(), "experts": NewExperts()}


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([known(), new()], r"'layers.1.gate' \(NewTopKRouter\)"),
        ([known(), {"mlp": nn.ModuleDict({"experts": nn.ModuleList()})}], "'layers.1.mlp.experts'"),
    ],
)
def test_what_is_not_known_is_refused_and_what_to_write_is_said(layers, name):
    made = model(*layers)
    assert has_experts(made)
    with pytest.raises(RoutingError, match=f"ModuleDict: {name}"):
        find_routers(made)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ({"router": MoEGate()}, "layers.0.router"),
        ({"router": MyRouter2()}, "layers.0.router"),
        ({"local_experts": nn.ModuleList([nn.Linear(8, 8)])}, "layers.0.local_experts"),
    ],
)
def test_what_is_called_a_router_or_experts_is_refused_whatever_its_sizes_are_called(layer, name):
    made = model(layer)
    assert has_experts(made)
    with pytest.raises(RoutingError, match=f"'{name}' "):
        find_routers(made)


@pytest.mark.parametrize("gate", [ForgetGate(), nn.Linear(8, 1)])
def test_a_layer_that_is_dense_is_not_told_of(gate):
    assert not has_experts(model({"gate": gate}))


def test_a_model_without_experts_is_said_to_have_none_with_the_ways_to_name_them():
    with pytest.raises(RoutingError, match=r"experts found; if it has experts, call .* RouterTap"):
        find_routers(nn.Linear(2, 2))


def test_a_router_beside_a_tap_is_counted_by_it():
    made = model({"router": MyRouter2(), "tap": RouterTap(experts=4, top_k=2)})
    assert [router.name for router in find_routers(made)] == ["layers.0.tap"]


def test_the_message_is_one_line_with_the_family_the_adapter_and_the_yaml():
    with pytest.raises(RoutingError) as caught:
        find_routers(model({}, new(), model_type="new_moe"))
    assert "\n" not in str(caught.value)
    for part in (
        "(family 'new_moe')",
        "RouterAdapter('MyRouter', read=lambda output: output.expert_ids)",
        "experts: {adapters: ['my_package.routers:MY_ADAPTER']}",
    ):
        assert part in str(caught.value)


def test_an_adapter_a_tap_or_the_name_of_an_argument_makes_them_known():
    adapter = RouterAdapter("NewTopKRouter", read=lambda output: output)
    routers = find_routers(model(known(), new()), [adapter])
    assert [router.name for router in routers] == ["layers.0.experts", "layers.1.gate"]
    tapped = {"experts": NewExperts(), "tap": RouterTap(experts=4, top_k=2)}
    routers = find_routers(model(known(), tapped))
    assert [router.name for router in routers] == ["layers.0.experts", "layers.1.tap"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(router=""), "router ''; give a class, or the end of its name"),
        (dict(read=3), "read 3; give a function"),
        (dict(experts=0), "experts 0; give the attribute of the router"),
    ],
)
def test_an_adapter_that_cannot_be_is_one_line(given, said):
    with pytest.raises(RoutingError, match=f"RouterAdapter: {said}"):
        RouterAdapter(**{"router": "My", "read": lambda output: output, **given})


def test_an_adapter_that_fits_no_module_is_refused_though_other_routers_are_known():
    made = model(known(), new())
    fits = RouterAdapter("NewTopKRouter", read=lambda output: output)
    with pytest.raises(RoutingError) as caught:
        find_routers(made, [fits, RouterAdapter("NewTopKRoutr", read=fits.read)])
    said = "class of the adapter for 'NewTopKRoutr'; did you mean 'NewTopKRouter'?; give"
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_with_experts_and_no_module_that_shows_them_is_refused():
    made = model({"mlp": nn.Linear(2, 2)}, model_type="new_moe", num_experts=4)
    assert has_experts(made)
    with pytest.raises(RoutingError, match=r"family 'new_moe'\): its configuration has experts"):
        find_routers(made)


def test_what_is_of_images_alone_in_transformers_is_left_out(monkeypatch):
    made = model(known())
    made["vision_tower"] = nn.ModuleDict({"experts": NewExperts()})
    with pytest.raises(RoutingError, match="'vision_tower.experts'"):
        find_routers(made)
    monkeypatch.setattr(NewExperts, "__module__", "transformers.models.new.modeling_new")
    assert [router.name for router in find_routers(made)] == ["layers.0.experts"]


def test_layers_of_an_encoder_and_a_decoder_have_names_of_their_own():
    halves = {name: model(known(), known()) for name in ("encoder", "decoder")}
    keys = [router.key for router in find_routers(nn.ModuleDict(halves))]
    assert keys[0] == "0/encoder.layers.0.experts"
    assert len(set(keys)) == 4
