"""Counts of experts equal a count by hand, and counting changes nothing in training."""

import copy
from contextlib import nullcontext

import pytest
import torch
from counted_by_hand import by_hand, counted, run, same
from routing_job import DOMAINS, batches, tiny
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mixopt.errors import RoutingError
from mixopt.routing import RouterAdapter, RouterStats, RouterTap


def test_counts_equal_a_count_by_hand():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data)
    assert counted(stats) == by_hand(model, data)


def test_domains_may_be_given_for_each_token():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    of_tokens = ids[:, None].expand_as(tokens).clone()
    of_tokens[:, 3:] = 2
    stats = RouterStats.attach(model, DOMAINS)
    with stats.domains(of_tokens, mask):
        model(tokens)
    expected = [int(((of_tokens == d) & mask.bool()).sum()) for d in range(3)]
    assert stats.total().tokens_D.tolist() == expected


def test_neither_padding_nor_a_pass_outside_of_domains_is_counted():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    stats = RouterStats.attach(model, DOMAINS)
    model(tokens)
    assert stats.total().tokens_D.sum() == 0
    with stats.domains(torch.where(mask.bool(), ids[:, None], -1), mask):
        model(tokens)
    assert stats.total().tokens_D.sum() == mask.sum()


def test_loss_gradients_and_random_numbers_are_those_of_a_run_that_is_not_counted():
    found = []
    for is_counted in (False, True):
        model, (tokens, ids, mask) = tiny(), batches(1)[0]
        stats = RouterStats.attach(model, DOMAINS) if is_counted else None
        torch.manual_seed(3)
        with stats.domains(ids, mask) if stats else nullcontext():
            loss = model(nn.functional.dropout(tokens.float()).long() % 32).square().mean()
        loss.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        found.append([loss.detach(), *gradients, torch.get_rng_state()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_evaluation_is_not_counted_unless_asked():
    data = batches()
    for asked in (False, True):
        model = tiny().eval()
        stats = RouterStats.attach(model, DOMAINS, evaluation=asked)
        run(model, stats, data)
        assert bool(stats.total().tokens_D.sum()) is asked


@pytest.mark.parametrize(("reentrant", "backward_inside"), [(False, True), (True, False)])
def test_a_token_is_counted_once_under_activation_checkpointing(reentrant, backward_inside):
    data = batches()
    plain, checked = tiny(), tiny(reentrant=reentrant)
    totals = []
    for model, inside in ((plain, False), (checked, backward_inside)):
        stats = RouterStats.attach(model, DOMAINS)
        run(model, stats, data, backward_inside=inside)
        totals.append(stats.total())
    assert same(*totals)


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


def test_dropped_choices_are_told_apart():
    tap = RouterTap(experts=4, top_k=2)
    stats = RouterStats.attach(tap, ["web"])
    with stats.domains(torch.zeros(1, 3, dtype=torch.long)):
        tap(torch.tensor([[0, 1], [0, -1], [-1, -1]]))
    layer = stats.total().layers[0]
    assert layer.counts_DE.tolist() == [[2, 1, 0, 0]]
    assert layer.dropped_D.tolist() == [3]
    assert layer.tokens_D.tolist() == [3]
    assert stats.summary().layers["dropped"].to_list() == [0.5]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda s: s.domains(torch.tensor([0, 1])), "need the mask"),
        (
            lambda s: s.domains(torch.tensor([0, 1]), torch.ones(3, 4)),
            r"shape \(2,\) and a mask of",
        ),
        (lambda s: s.domains(torch.tensor([0.0, 1.0]), torch.ones(2, 4)), "integers of shape"),
        (lambda s: s.domains(["web", "code"], torch.ones(2, 4)), "domain ids: .'web'.*integers"),
    ],
)
def test_domains_that_cannot_be_are_refused(use, message):
    stats = RouterStats.attach(tiny(), DOMAINS)
    with pytest.raises(RoutingError, match=message), use(stats):
        pass


ADDITIVE = torch.tensor([[0.0, 0.0, -1e9], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("ids", "mask", "said"),
    [
        ([0, 3], torch.ones(2, 3), "sequence 1, token 0: domain id 3: the domains are 0 to 2"),
        ([0, 0], ADDITIVE, r"sequence 0, token 2: the mask is -1e\+09; it is 1 for real"),
        ([0, 0], ADDITIVE * 0, "the mask is 0 for every token; .* give `mask == 0` of an additive"),
        (
            [0, 0],
            torch.tensor([[1, 1, 2], [1, 1, 1]]),
            "token 2: the mask is 2; .* `mask > 0` of one that numbers",
        ),
    ],
)
def test_ids_and_masks_that_cannot_be_are_refused(ids, mask, said):
    tap = RouterTap(experts=2, top_k=1)
    stats = RouterStats.attach(tap, DOMAINS)
    passes = []
    tap.register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(RoutingError, match=said) as caught, stats.domains(ids, mask):
        tap(torch.zeros(6, 1, dtype=torch.long))
    assert "\n" not in str(caught.value)
    assert bool(passes) != bool(mask.any()), "what is wrong is seen before the forward pass"


def test_unknown_domains_on_a_device_are_found_when_counts_are_reduced():
    tap = RouterTap(experts=2, top_k=1)
    stats = RouterStats.attach(tap, DOMAINS)
    for marked in (0, 3):  # as `token_domains` marks one that cannot be
        stats._begin(torch.full((4, 6), marked))
        tap(torch.zeros(24, 1, dtype=torch.long))
        stats._end(is_whole=True)
    with pytest.raises(RoutingError, match="24 tokens have a domain id that is none of 0 to 2"):
        stats.reduce()


def test_domains_of_another_batch_are_refused():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    stats = RouterStats.attach(model, DOMAINS)
    with (
        pytest.raises(RoutingError, match="ran on 12 tokens; the domains are of 24"),
        stats.domains(ids, mask),
    ):
        model(tokens[:2])


def test_a_batch_without_a_forward_pass_or_with_two_is_an_error():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    stats = RouterStats.attach(model, DOMAINS)
    with pytest.raises(RoutingError, match="ran 0 times in 1 batches"), stats.domains(ids, mask):
        pass
    stats.detach()
    stats = RouterStats.attach(model, DOMAINS)
    with pytest.raises(RoutingError, match="ran 2 times in 1 batches"), stats.domains(ids, mask):
        model(tokens), model(tokens)


def test_two_attachments_to_one_model_are_refused_also_through_a_wrapper():
    model = tiny()
    RouterStats.attach(model, DOMAINS)
    for again in (model, nn.Sequential(model)):
        with pytest.raises(RoutingError, match=r"layers.1.tap' is already counted"):
            RouterStats.attach(again, DOMAINS)


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
    model = nn.ModuleDict({"layers": nn.ModuleList([copy.deepcopy(one) for one in layers])})
    assert list(RouterStats.attach(model, DOMAINS).total().sizes) == keys


@pytest.mark.parametrize("names", ["web", ["web", "web"]])
def test_names_of_domains_are_a_list_each_once(names):
    with pytest.raises(RoutingError, match="give a list of names"):
        RouterStats.attach(tiny(), names)


def test_a_router_that_gives_something_else_is_named():
    class MyTopKRouter(nn.Module):
        num_experts, top_k = 4, 2

        def forward(self, x):
            return x

    model = MyTopKRouter()
    adapter = RouterAdapter("MyTopKRouter", read=lambda output: output[2])
    stats = RouterStats.attach(model, DOMAINS, adapters=[adapter])
    for output in (torch.zeros(2, 4), (torch.zeros(2, 4),) * 3):
        with (
            pytest.raises(RoutingError, match=r"router '': what MyTopKRouter returns"),
            stats.domains(torch.zeros(1, 2, dtype=torch.long)),
        ):
            model(output)


def test_a_router_needs_a_number_of_experts():
    linear = nn.Linear(2, 2)
    linear.flag = True
    for experts in ("absent", "flag"):
        adapter = RouterAdapter("Linear", read=lambda out: out, experts=experts, top_k=1)
        with pytest.raises(RoutingError, match=f"router '': Linear has no number {experts!r}"):
            RouterStats.attach(linear, DOMAINS, adapters=[adapter])
    adapter = RouterAdapter("Linear", read=lambda out: out, experts=2, top_k=3)
    with pytest.raises(RoutingError, match="router '': Linear: chooses 3 of 2 experts"):
        RouterStats.attach(linear, DOMAINS, adapters=[adapter])


def test_an_id_that_is_of_no_expert_is_refused_in_the_first_batch():
    tap = RouterTap(experts=2, top_k=1)
    stats = RouterStats.attach(tap, ["web"])
    message = r"router '': 2 ids are none of its 2 experts \(1 above 1, 1 below -1\)"
    with pytest.raises(RoutingError, match=message), stats.domains(torch.zeros(1, 4).long()):
        tap(torch.tensor([0, 2, -2, -1])[:, None])
