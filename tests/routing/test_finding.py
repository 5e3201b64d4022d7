"""Models whose experts would be counted in part or not at all are refused with what to write."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mixopt.errors import RoutingError
from mixopt.routing import RouterAdapter, RouterTap, find_routers, has_experts


class NewTopKRouter(nn.Module):
    num_experts, top_k = 4, 2

    def forward(self, x):
        return x[:, :4], x[:, :2], x[:, :4].topk(2).indices


class MixtralTopKRouter(NewTopKRouter):
    pass


class NewExperts(nn.Module):
    pass


def model(*layers, **config):
    whole = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict(layer) for layer in layers)})
    whole.config = SimpleNamespace(**config)
    return whole


def known():
    return {"gate": MixtralTopKRouter(), "experts": NewExperts()}


def new():
    return {"gate": NewTopKRouter(), "experts": NewExperts()}


ROUTER = r"ModuleDict.*: 'layers.1.gate' is a router of a class that is not known, NewTopKRouter:"
EXPERTS = r"ModuleDict.*: 'layers.1.experts' \(NewExperts\) has experts, and no router of it is"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{}, new()], ROUTER),
        ([known(), new()], ROUTER),  # DeepSeek-V4 was counted in one layer of four like this
        ([{}, {"experts": NewExperts()}], EXPERTS),
        ([known(), {"experts": NewExperts()}], EXPERTS),
        ([{}, {"mlp": nn.ModuleDict({"experts": nn.ModuleList()})}], "'layers.1.mlp.experts' "),
        ([known(), {"gate": type("NllbMoeTop2Router", (nn.Module,), {})()}], "is not counted: "),
    ],
)
def test_what_is_not_known_is_refused_and_what_to_write_is_said(layers, message):
    made = model(*layers)
    assert has_experts(made)
    with pytest.raises(RoutingError, match=message):
        find_routers(made)


def test_the_message_is_one_line_with_the_family_the_adapter_and_the_yaml():
    with pytest.raises(RoutingError) as caught:
        find_routers(model({}, new(), model_type="new_moe"))
    assert "\n" not in str(caught.value)
    for part in (
        "(family 'new_moe')",
        "RouterAdapter('NewTopKRouter', read=lambda output: (output.expert_ids, output.logits))",
        "experts: {adapters: ['my_package.routers:MY_ADAPTER']}",
    ):
        assert part in str(caught.value)


def test_an_adapter_or_a_tap_makes_them_known():
    adapter = RouterAdapter("NewTopKRouter", read=lambda output: (output[2], output[0]))
    found = find_routers(model(known(), new()), [adapter])
    assert [(router.layer, router.scores) for router in found] == [(0, "softmax"), (1, "softmax")]
    tapped = {"experts": NewExperts(), "tap": RouterTap(experts=4, top_k=2)}
    assert [router.name for router in find_routers(model(known(), tapped))] == [
        "layers.0.gate",
        "layers.1.tap",
    ]


def test_a_configuration_with_experts_and_no_module_that_shows_them_is_refused():
    made = model({"mlp": nn.Linear(2, 2)}, model_type="new_moe", num_experts=4)
    assert has_experts(made)
    with pytest.raises(RoutingError, match=r"family 'new_moe'\): its configuration has experts"):
        find_routers(made)


@pytest.mark.parametrize(
    "config",
    [{"num_experts": 1}, {"num_local_experts": 0}, {"model_type": "doge", "num_experts": 16}, {}],
)
def test_a_dense_model_has_no_experts(config):
    made = model({"mlp": nn.Linear(2, 2), "gate": nn.Linear(2, 2)}, **config)
    assert not has_experts(made)


def test_what_is_of_images_alone_in_transformers_is_left_out(monkeypatch):
    made = model(known())
    made["vision_tower"] = nn.ModuleDict({"experts": NewExperts()})
    with pytest.raises(RoutingError, match="'vision_tower.experts'"):
        find_routers(made)
    monkeypatch.setattr(NewExperts, "__module__", "transformers.models.new.modeling_new")
    assert [router.name for router in find_routers(made)] == ["layers.0.gate"]


def test_a_bias_is_found_in_the_block_around_its_router_and_read_as_it_is_now():
    class MiniMaxM2TopKRouter(NewTopKRouter):
        pass

    layer = nn.ModuleDict({"gate": MiniMaxM2TopKRouter(), "experts": NewExperts()})
    layer.register_buffer("e_score_correction_bias", torch.zeros(4))
    made = nn.ModuleDict({"layers": nn.ModuleList([layer])})
    (router,) = find_routers(made)
    assert router.scores == "sigmoid"
    layer.e_score_correction_bias = torch.ones(4)  # as moving a model to a device does
    assert router.bias().tolist() == [1, 1, 1, 1]
    del layer.e_score_correction_bias
    assert find_routers(made)[0].bias is None


def test_an_adapter_that_fits_no_module_is_refused_where_other_routers_are_known():
    def read(output):
        return output[2], output[0]

    made = model(known(), known())
    for router, name in (("NewTopKRuoter", "NewTopKRuoter"), (NewExpertsOfAnother, "NewExperts")):
        with pytest.raises(RoutingError, match=f"the adapter of '{name}.* fits no module; give"):
            find_routers(made, [RouterAdapter(router, read=read)])
    assert len(find_routers(made, [RouterAdapter("TopKRouter", read=read)])) == 2


class NewExpertsOfAnother(nn.Module):
    pass
