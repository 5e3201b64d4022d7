"""Which tokens count, without waiting for the device, and what cannot be counted is said."""

import copy

import pytest
import torch
from counted_by_hand import run, same
from refusals import refuses
from routing_job import DOMAINS, batches, tiny
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mixopt.errors import RoutingError
from mixopt.routing import RouterAdapter, RouterStats, RouterTap


@pytest.fixture
def counted():
    """A model, one batch of tokens, domains of sequences and mask, and what counts."""
    model = tiny()
    return model, *batches(1)[0], RouterStats.attach(model, DOMAINS)


def tapped(domains=DOMAINS, **sizes):
    tap = RouterTap(**{"experts": 2, "top_k": 1, **sizes})
    return tap, RouterStats.attach(tap, domains)


def test_tokens_are_of_their_own_domains_and_neither_padding_nor_a_pass_outside_is_counted(counted):
    model, tokens, ids, mask, stats = counted
    model(tokens)
    assert stats.total().tokens_D.sum() == 0
    of_tokens = ids[:, None].expand_as(tokens).clone()
    of_tokens[:, 3:] = 2
    with stats.domains(torch.where(mask.bool(), of_tokens, -1), mask):
        model(tokens)
    expected = [int(((of_tokens == d) & mask.bool()).sum()) for d in range(3)]
    assert stats.total().tokens_D.tolist() == expected


def test_evaluation_is_not_counted_unless_asked():
    data = batches()

    def counted(**options):
        model = tiny().eval()
        stats = RouterStats.attach(model, DOMAINS, **options)
        run(model, stats, data)
        return stats.total().tokens_D.sum()

    assert counted() == 0
    assert counted(evaluation=True) == sum(int(mask.sum()) for _, _, mask in data)


def test_a_token_is_counted_once_under_reentrant_checkpointing():
    totals = []
    for model in (tiny(), tiny(reentrant=True)):
        stats = RouterStats.attach(model, DOMAINS)
        run(model, stats, batches())
        totals.append(stats.total())
    assert same(*totals)


def test_dropped_choices_are_told_apart():
    tap, stats = tapped(["web"], experts=4, top_k=2)
    with stats.domains(torch.zeros(1, 3, dtype=torch.long)):
        tap(torch.tensor([[0, 1], [0, -1], [-1, -1]]))
    layer = stats.total().layers[0]
    assert layer.counts_DE.tolist() == [[2, 1, 0, 0]]
    assert layer.dropped_D.tolist() == layer.tokens_D.tolist() == [3]
    assert stats.summary().layers["dropped"].to_list() == [0.5]


class Watch(TorchDispatchMode):
    """Notes operators that wait for a device."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.name()
        if name in {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}:
            self.waits.append(name)
        return function(*arguments, **(options or {}))


def test_the_host_does_not_wait_for_the_device_between_reductions():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])  # the first batch is checked
    on_device = torch.tensor([0, 1, 2, 0])
    with Watch() as watch:
        for tokens, _, mask in data:
            # What `domains` does with ids of a device, where values are not looked at.
            stats._begin(torch.where(mask.bool(), on_device[:, None], 4))
            model(tokens)
            stats._end(is_whole=True)
    assert watch.waits == []


WHOLE = torch.ones(2, 3)
ADDITIVE = torch.tensor([[0.0, 0.0, -1e9], [0.0, 0.0, 0.0]])
NUMBERED = torch.tensor([[1, 1, 2], [1, 1, 1]])


@pytest.mark.parametrize(
    ("ids", "mask", "said"),
    [
        ([0, 1], None, "need the mask"),
        ([0, 1, 2], WHOLE, r"shape \(3,\) and a mask of shape \(2, 3\)"),
        ([0, 1], WHOLE[0, :2], r"shape \(2,\) and a mask of shape \(2,\)"),
        ([0.0, 1.0], WHOLE, "torch.float32 of shape .2,.; integers of shape"),
        ([True, False], WHOLE, "torch.bool of shape"),
        ([[[0]]], None, r"of shape \(1, 1, 1\); integers"),
        (["web", "code"], WHOLE, "domain ids: .'web'.*integers"),
        ([0, 3], WHOLE, "sequence 1, token 0: domain id 3: the domains are 0 to 2"),
        ([0, -1], WHOLE, "sequence 1, token 0: domain id -1: the domains are 0 to 2"),
        ([0, 0], ADDITIVE, r"sequence 0, token 2: the mask is -1e\+09; it is 1 for real"),
        ([0, 0], ADDITIVE * 0, "the mask is 0 for every token; .* give `mask == 0` of an additive"),
        ([0, 0], NUMBERED, "token 2: the mask is 2; .* `mask > 0` of one that numbers"),
    ],
)
def test_ids_and_masks_that_cannot_be_are_refused(ids, mask, said):
    tap, stats = tapped()
    passes = []
    tap.register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(RoutingError, match=said) as caught, stats.domains(ids, mask):
        tap(torch.zeros(6, 1, dtype=torch.long))
    assert "\n" not in str(caught.value)
    assert bool(passes) is (mask is not None and not mask.any()), "seen before the forward pass"


def test_unknown_domains_on_a_device_are_found_when_counts_are_reduced():
    tap, stats = tapped()
    for marked in (0, 3):  # as `token_domains` marks one that cannot be
        stats._begin(torch.full((4, 6), marked))
        tap(torch.zeros(24, 1, dtype=torch.long))
        stats._end(is_whole=True)
    refuses(RoutingError, "24 tokens have a domain id that is none of 0 to 2", stats.reduce)


@pytest.mark.parametrize(
    ("passes", "said"),
    [
        ([], r"layers.1.tap' ran 0 times in 1 batches; .* compiled before"),
        ([4, 4], "ran 2 times in 1 batches; .* one forward pass, and no backward"),
        ([2], "ran on 12 tokens; the domains are of 24"),
    ],
)
def test_a_batch_is_one_forward_pass_on_its_tokens(counted, passes, said):
    model, tokens, ids, mask, stats = counted
    with pytest.raises(RoutingError, match=said), stats.domains(ids, mask):
        _ = [model(tokens[:sequences]) for sequences in passes]


def test_two_attachments_to_one_model_count_alike(counted):
    model, tokens, ids, mask, stats = counted
    other = RouterStats.attach(nn.Sequential(model), DOMAINS)
    with stats.domains(ids, mask), other.domains(ids, mask):
        model(tokens)
    assert same(stats.total(), other.total())


def two_routers(*names):
    return nn.ModuleDict(
        {name: nn.ModuleDict({"router": RouterTap(experts=2, top_k=1)}) for name in names}
    )


@pytest.mark.parametrize(
    ("layers", "keys"),
    [
        (
            [two_routers("attention", "mlp")] * 2,
            ["0/attention.router", "0/mlp.router", "1/attention.router", "1/mlp.router"],
        ),
        ([two_routers("mlp"), two_routers("attention")], ["0", "1"]),
        ([nn.ModuleList([RouterTap(experts=2, top_k=1) for _ in range(2)])], ["0/0", "0/1"]),
    ],
)
def test_routers_of_one_layer_are_named_by_what_tells_them_apart(layers, keys):
    model = nn.ModuleDict({"layers": nn.ModuleList([copy.deepcopy(layer) for layer in layers])})
    assert list(RouterStats.attach(model, DOMAINS).total().sizes) == keys


@pytest.mark.parametrize("names", ["web", ["web", "web"], [], [1, 2]])
def test_names_of_domains_are_a_list_each_once(names):
    refuses(RoutingError, "give a list of names", RouterStats.attach, tiny(), names)


class MyTopKRouter(nn.Module):
    num_experts, top_k, flag = 4, 2, True

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (torch.zeros(2, 4), "cannot be read: IndexError: index 2 is out of bounds"),
        ((torch.zeros(2, 2),) * 3, r"gave ids of torch.float32 and shape \(2, 2\); integers of"),
        ((torch.zeros(2, 2) > 0,) * 3, "gave ids of torch.bool"),
        (
            torch.zeros(3, 2, 4, dtype=torch.long),
            r"gave ids of torch.int64 and shape \(2, 4\); .* \(tokens, 2\)",
        ),
    ],
)
def test_a_router_that_gives_something_else_is_named(output, said):
    model = MyTopKRouter()
    adapter = RouterAdapter("MyTopKRouter", read=lambda output: output[2])
    stats = RouterStats.attach(model, DOMAINS, adapters=[adapter])
    with (
        pytest.raises(RoutingError, match=f"router '': what MyTopKRouter returns {said}"),
        stats.domains(torch.zeros(1, 2, dtype=torch.long)),
    ):
        model(output)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (dict(experts="flag"), "has no number 'flag'"),
        (dict(top_k="absent"), "has no number 'absent'"),
        (dict(experts=1), "chooses 2 of 1 experts"),
    ],
)
def test_a_router_needs_a_number_of_experts(sizes, said):
    adapter = RouterAdapter("MyTopKRouter", read=lambda out: out, **sizes)
    with pytest.raises(RoutingError, match=f"router '': MyTopKRouter:? {said}"):
        RouterStats.attach(MyTopKRouter(), DOMAINS, adapters=[adapter])


def test_an_id_that_is_of_no_expert_is_refused_in_the_first_batch():
    tap, stats = tapped(["web"])
    message = r"router '': 2 ids are none of its 2 experts \(1 above 1, 1 below -1\)"
    with pytest.raises(RoutingError, match=message), stats.domains(torch.zeros(1, 4).long()):
        tap(torch.tensor([0, 2, -2, -1])[:, None])
