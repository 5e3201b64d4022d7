"""Counts of experts equal a count by hand, and counting changes nothing in training."""

from collections import Counter

import numpy as np
import pytest
import torch
from routing_job import DOMAINS, TOP_K, batches, tiny
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mixopt.errors import RoutingError
from mixopt.routing import RouterAdapter, RouterStats, RouterTap


def run(model, stats, data, *, backward_inside=False):
    for tokens, ids, mask in data:
        with stats.domains(ids, mask):
            loss = model(tokens).square().mean()
            if backward_inside:
                loss.backward()
        if not backward_inside:
            loss.backward()


def by_hand(model, data):
    """Count assignments from the routers' logits, token by token."""
    counts = Counter()
    for tokens, ids, mask in data:
        x = model.embedding(tokens)
        for number, layer in enumerate(model.layers):
            if number:
                chosen = layer.router(x).topk(TOP_K).indices
                for b, s in np.ndindex(*tokens.shape):
                    if mask[b, s]:
                        for expert in chosen[b, s].tolist():
                            counts[DOMAINS[ids[b]], number, expert] += 1
            x = x + layer(x)
    return counts


def counted(stats):
    rows = stats.table().select("domain", "layer", "expert", "tokens").rows()
    return Counter({tuple(key): tokens for *key, tokens in rows if tokens})


def arrays(assignments):
    return [a for layer in assignments.layers for a in layer.arrays().values()]


def same(one, other):
    return all(
        np.allclose(a, b, rtol=1e-5) for a, b in zip(arrays(one), arrays(other), strict=True)
    )


def test_counts_equal_a_count_by_hand():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data)
    assert counted(stats) == by_hand(model, data)


def test_each_real_token_has_k_assignments_in_each_layer():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data)
    real = sum(int(mask.sum()) for _, _, mask in data)
    assert stats.table()["tokens"].sum() == real * TOP_K * 2


def test_the_layer_is_the_models_own_number():
    assert set(RouterStats.attach(tiny(), DOMAINS).table()["layer"]) == {1, 2}


def test_probability_is_the_routers_mean_over_a_domains_tokens():
    model, data = tiny(), batches(1)
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data)
    tokens, ids, mask = data[0]
    x = model.embedding(tokens)
    x = x + model.layers[0](x)
    of_domain = ((ids == 1)[:, None] & mask.bool()).flatten()
    expected = model.layers[1].router(x).softmax(-1).flatten(0, 1)[of_domain].mean(0)
    table = stats.table().filter(domain="code", layer=1)
    np.testing.assert_allclose(table["probability"], expected.detach(), rtol=1e-5)


def test_domains_may_be_given_for_each_token():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    of_tokens = ids[:, None].expand_as(tokens).clone()
    of_tokens[:, 3:] = 2
    stats = RouterStats.attach(model, DOMAINS)
    with stats.domains(of_tokens, mask):
        model(tokens)
    expected = [int(((of_tokens == d) & mask.bool()).sum()) for d in range(3)]
    assert stats.total().tokens_D.tolist() == expected


def test_ids_of_padding_do_not_matter():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    of_tokens = torch.where(mask.bool(), ids[:, None], -1)
    stats = RouterStats.attach(model, DOMAINS)
    with stats.domains(of_tokens, mask):
        model(tokens)
    assert stats.total().tokens_D.sum() == mask.sum()


def test_evaluation_is_not_counted_unless_asked():
    data = batches()
    for asked in (False, True):
        model = tiny().eval()
        stats = RouterStats.attach(model, DOMAINS, evaluation=asked)
        run(model, stats, data)
        assert bool(stats.total().tokens_D.sum()) is asked


def test_forward_passes_outside_of_domains_are_not_counted():
    model = tiny()
    stats = RouterStats.attach(model, DOMAINS)
    model(batches(1)[0][0])
    assert stats.table()["tokens"].sum() == 0


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backward_inside", [False, True])
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
            stats._counting.begin(torch.where(mask.bool(), on_device[:, None], 4))
            model(tokens)
            stats._counting.end(whole=True)
    assert watch.waits == []


def test_counts_are_integers_on_the_device_and_no_buffers():
    model = tiny()
    before = [name for name, _ in model.named_buffers()]
    stats = RouterStats.attach(model, DOMAINS)
    assert [name for name, _ in model.named_buffers()] == before
    assert all(c.counts.dtype == torch.int64 for c in stats._counting._counters)


def test_a_callback_takes_the_domains_from_the_batch():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny()

        def forward(self, *, tokens, attention_mask):
            return self.inner(tokens)

    model = Named()
    stats = RouterStats.attach(
        model, DOMAINS, from_batch=lambda batch: (batch.pop("domain"), batch["attention_mask"])
    )
    data = batches()
    for tokens, ids, mask in data:
        model(tokens=tokens, attention_mask=mask, domain=ids)
    assert counted(stats) == by_hand(model.inner, data)


def test_a_forward_pass_that_fails_is_left_out_where_a_callback_opens_the_batches():
    model, data = tiny(), batches(3)
    place = iter([0, 1, 1, 2])
    stats = RouterStats.attach(model, DOMAINS, from_batch=lambda batch: data[next(place)][1:])
    model(data[0][0])
    head, model.head = model.head, nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(data[1][0])
    model.head = head
    for tokens, _, _ in data[1:]:
        model(tokens)
    # What the routers had counted of it before the error stays; it is no whole batch.
    assert stats._counting.pending.batches == 3
    assert stats._counting.pending.interrupted == 1
    assert counted(stats) == by_hand(model, [data[0], data[1], data[1], data[2]])


def test_a_window_is_what_came_since_the_last():
    model, data = tiny(), batches(4)
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    first = stats.window()
    run(model, stats, data[1:])
    second = stats.window()
    assert same(first + second, stats.total())
    assert second.tokens_D.sum() == sum(int(mask.sum()) for _, _, mask in data[1:])
    assert stats.window().tokens_D.sum() == 0


def test_an_interrupted_batch_does_not_stop_the_count():
    model, data = tiny(), batches()
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    with pytest.raises(KeyError), stats.domains(data[1][1], data[1][2]):
        raise KeyError
    run(model, stats, data[1:])
    assert counted(stats) == by_hand(model, data)


def test_a_state_goes_on_where_it_was(tmp_path):
    data = batches(4)
    model = tiny()
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    stats.window()
    run(model, stats, data[1:2])
    torch.save(stats.state_dict(), tmp_path / "state.pt")
    stats.detach()

    again = RouterStats.attach(model, DOMAINS)
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(loaded)
    for tensor in loaded.values():
        if isinstance(tensor, torch.Tensor):
            tensor.zero_()  # whose it is now is its owner's business
    run(model, again, data[2:])
    assert again.window().tokens_D.sum() == sum(int(mask.sum()) for _, _, mask in data[1:])
    assert counted(again) == by_hand(model, data)


def test_nothing_is_counted_after_detaching_and_another_may_attach():
    model, data = tiny(), batches(1)
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data)
    stats.detach()
    other = RouterStats.attach(model, DOMAINS)
    run(model, other, data)
    assert same(stats.total(), other.total())


def hooks(model):
    """Return all hooks on a model's forward passes."""
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


@pytest.mark.parametrize("by_callback", [False, True])
def test_detaching_takes_every_hook_out_of_the_model_and_keeps_the_counts(by_callback):
    model, data = tiny(), batches(1)
    tokens, ids, mask = data[0]
    callback = (lambda batch: (ids, mask)) if by_callback else None
    stats = RouterStats.attach(model, DOMAINS, from_batch=callback)
    assert len(hooks(model)) == (4 if by_callback else 2)
    if by_callback:
        model(tokens)
    else:
        run(model, stats, data)
    stats.detach()
    assert hooks(model) == []
    model(tokens)
    assert counted(stats) == by_hand(model, data)


def test_a_probe_takes_its_hooks_out_also_after_an_error():
    model = tiny()
    stats = RouterStats.attach(model, DOMAINS)
    before = hooks(model)
    with stats.probe():
        assert len(hooks(model)) == len(before) + 2
    assert hooks(model) == before
    with pytest.raises(KeyError), stats.probe():
        raise KeyError
    assert hooks(model) == before
    with stats.probe():
        pass


def test_counters_begin_from_nothing_after_each_reduction_and_when_a_state_is_loaded():
    model, data = tiny(), batches(3)
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    state = stats.state_dict()
    kept = [array.copy() for array in arrays(stats.total())]
    run(model, stats, data[1:2])  # is not in the state, and not reduced
    stats.load_state_dict(state)
    for counter in stats._counting._counters:
        assert not counter.counts.any()
        assert not counter.passes.any()
        assert not counter.sums_DF.any()
    for now, then in zip(arrays(stats.total()), kept, strict=True):
        assert np.array_equal(now, then)
    run(model, stats, data[2:])
    assert counted(stats) == by_hand(model, [data[0], data[2]])


def test_an_adapter_of_one_line_reads_any_router():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.count = nn.Linear(8, 5), 5

        def forward(self, x):
            scores = self.linear(x)
            return {"scores": scores, "where": scores.topk(3).indices.int()}

    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Identity(), Odd()])})
    adapter = RouterAdapter(
        "Odd", read=lambda out: (out["where"], out["scores"]), experts="count", top_k=3
    )
    stats = RouterStats.attach(model, DOMAINS, adapters=[adapter])
    x = torch.randn(2, 4, 8)
    with stats.domains(torch.zeros(2, 4, dtype=torch.long)):
        chosen = model["blocks"][1](x)["where"]
    expected = np.bincount(chosen.flatten(), minlength=5)
    assert stats.total().layer(1).counts_DE[0].tolist() == expected.tolist()


def test_dropped_choices_are_told_apart():
    tap = RouterTap(experts=4, top_k=2)
    stats = RouterStats.attach(tap, ["web"])
    with stats.domains(torch.zeros(1, 3, dtype=torch.long)):
        tap(torch.tensor([[0, 1], [0, 4], [4, 4]]))
    layer = stats.total().layers[0]
    assert layer.counts_DE.tolist() == [[2, 1, 0, 0]]
    assert layer.dropped_D.tolist() == [3]
    assert layer.tokens_D.tolist() == [3]
    assert stats.summary().layers["dropped"].to_list() == [0.5]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda s: s.domains(torch.tensor([0, 3]), torch.ones(2, 4)), "domain id 3: the 3 domains"),
        (lambda s: s.domains(torch.tensor([0, -1]), torch.ones(2, 4)), "domain id -1"),
        (lambda s: s.domains(torch.tensor([0, 1])), "need the mask"),
        (
            lambda s: s.domains(torch.tensor([0, 1]), torch.ones(3, 4)),
            r"shape \(2,\) and a mask of",
        ),
        (lambda s: s.domains(torch.zeros(2, 3).long(), torch.ones(2, 4)), r"shape \(2, 3\) and a"),
        (lambda s: s.domains(torch.tensor([0.0, 1.0]), torch.ones(2, 4)), "integers of shape"),
        (lambda s: s.domains(torch.zeros(1, 1, 1).long(), torch.ones(1, 1)), "integers of shape"),
        (lambda s: s.domains(["web", "code"], torch.ones(2, 4)), "domain ids: .'web'.*integers"),
    ],
)
def test_domains_that_cannot_be_are_refused(use, message):
    stats = RouterStats.attach(tiny(), DOMAINS)
    with pytest.raises(RoutingError, match=message), use(stats):
        pass


def test_unknown_domains_on_a_device_are_found_when_counts_are_reduced():
    model, (tokens, _, _) = tiny(), batches(1)[0]
    stats = RouterStats.attach(model, DOMAINS)
    stats._counting.begin(torch.full(tokens.shape, len(DOMAINS)))  # how an unknown id is marked
    model(tokens)
    stats._counting.end(whole=True)
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


def test_a_second_forward_pass_in_a_later_batch_is_found_when_counts_are_reduced():
    model, data = tiny(), batches(2)
    stats = RouterStats.attach(model, DOMAINS)
    run(model, stats, data[:1])
    tokens, ids, mask = data[1]
    for is_reduced, message in ((False, "ran 3 times in 2"), (True, "ran 2 times in 1")):
        if is_reduced:
            run(model, stats, data[:1])
            stats.reduce()
        with stats.domains(ids, mask):
            model(tokens)
            model(tokens)
        with pytest.raises(RoutingError, match=message):
            stats.reduce()


def test_a_model_without_a_router_says_what_was_looked_for_and_how_to_adapt_it():
    message = "no router found; looked for RouterTap and for classes named ...TopKRouter.*adapters"
    with pytest.raises(RoutingError, match=message):
        RouterStats.attach(nn.Linear(2, 2), DOMAINS)


def test_two_attachments_to_one_model_are_refused_also_through_a_wrapper():
    model = tiny()
    RouterStats.attach(model, DOMAINS)
    for again in (model, nn.Sequential(model)):
        with pytest.raises(RoutingError, match=r"layers.1.tap' is counted already"):
            RouterStats.attach(again, DOMAINS)


def test_two_routers_in_one_layer_are_refused():
    layer = nn.ModuleList([RouterTap(experts=2, top_k=1), RouterTap(experts=2, top_k=1)])
    model = nn.ModuleDict({"layers": nn.ModuleList([layer])})
    with pytest.raises(RoutingError, match=r"layer 0 has several routers: layers.0.0, layers.0.1"):
        RouterStats.attach(model, DOMAINS)


@pytest.mark.parametrize("names", ["web", [], ["web", "web"], [0, 1]])
def test_names_of_domains_are_a_list_each_once(names):
    with pytest.raises(RoutingError, match="give a list of names"):
        RouterStats.attach(tiny(), names)


def test_a_router_that_gives_something_else_is_named():
    class MyTopKRouter(nn.Module):
        num_experts, top_k = 4, 2

        def forward(self, x):
            return x

    model = MyTopKRouter()
    stats = RouterStats.attach(model, DOMAINS)
    for output in (torch.zeros(2, 4), (torch.zeros(2, 4),) * 3):
        with (
            pytest.raises(RoutingError, match=r"router '': what MyTopKRouter returns"),
            stats.domains(torch.zeros(1, 2, dtype=torch.long)),
        ):
            model(output)


def test_a_state_of_other_experts_or_domains_is_refused():
    taps = {e: RouterTap(experts=e, top_k=2) for e in (4, 8)}
    state = RouterStats.attach(taps[4], DOMAINS).state_dict()
    other = RouterStats.attach(taps[8], DOMAINS)
    with pytest.raises(RoutingError, match="checkpoint is of other experts: layer 0 has 4 experts"):
        other.load_state_dict(state)
    with pytest.raises(RoutingError, match="not a state of RouterStats"):
        other.load_state_dict({"weights": 1})
    renamed = RouterStats.attach(RouterTap(experts=4, top_k=2), ["a", "b", "c"])
    with pytest.raises(RoutingError, match="counts the domains web, code, books; here they are a"):
        renamed.load_state_dict(state)


def test_batches_do_not_overlap_and_a_detached_one_counts_no_more():
    model, (tokens, ids, mask) = tiny(), batches(1)[0]
    stats = RouterStats.attach(model, DOMAINS)
    with stats.domains(ids, mask):
        model(tokens)
        with pytest.raises(RoutingError, match="open already"), stats.domains(ids, mask):
            pass
        with pytest.raises(RoutingError, match="cannot begin inside"), stats.probe():
            pass
    stats.detach()
    with pytest.raises(RoutingError, match="was detached"), stats.domains(ids, mask):
        pass


def halves(tap, stats, sequences, position=None):
    """Count one token of each sequence, each to an expert of its own; return those of each half."""
    ids = torch.zeros(sequences, 1, dtype=torch.long)
    with stats.domains(ids, position=position):
        tap(torch.arange(sequences)[:, None])
    counts_HE = stats.window().layers[0].counts_HDE[:, 0]
    return [np.flatnonzero(counts_E).tolist() for counts_E in counts_HE]


def test_sequences_alternate_between_the_halves_and_who_comes_first_changes_by_batch():
    tap = RouterTap(experts=4, top_k=1)
    stats = RouterStats.attach(tap, ["web"])
    assert halves(tap, stats, 4) == [[0, 2], [1, 3]]
    ids = torch.zeros(1, 1, dtype=torch.long)
    for expert in range(4):
        with stats.domains(ids):
            tap(torch.tensor([[expert]]))
    counts_HE = stats.window().layers[0].counts_HDE[:, 0]
    assert counts_HE.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_by_its_position_a_sequence_is_of_the_half_that_the_parity_of_its_bits_says():
    tap = RouterTap(experts=6, top_k=1)
    stats = RouterStats.attach(tap, ["web"])
    assert halves(tap, stats, 6, position=0) == [[0, 3, 5], [1, 2, 4]]
    assert halves(tap, stats, 6, position=3) == [[0, 2, 3], [1, 4, 5]], "3, 5 and 6 have two bits"


def test_an_id_beyond_the_experts_is_a_dropped_choice_where_there_are_no_logits():
    tap = RouterTap(experts=2, top_k=1)
    stats = RouterStats.attach(tap, ["web"])
    with stats.domains(torch.zeros(1, 3, dtype=torch.long)):
        tap(torch.tensor([[0], [7], [2]]))
    layer = stats.total().layers[0]
    assert (layer.counts_DE.tolist(), layer.dropped_D.tolist()) == ([[1, 0]], [2])


def test_a_layer_inside_a_block_has_the_number_of_the_inner_one():
    inner = nn.ModuleDict({"layers": nn.ModuleList([nn.Identity(), RouterTap(experts=2, top_k=1)])})
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"inner": inner})])})
    assert list(RouterStats.attach(model, DOMAINS).total().sizes) == [1]


def test_a_router_needs_a_number_of_experts():
    for experts in (0, "absent"):
        adapter = RouterAdapter("Linear", read=lambda out: (out, None), experts=experts, top_k=1)
        with pytest.raises(RoutingError, match=f"router '': Linear has no number {experts!r}"):
            RouterStats.attach(nn.Linear(2, 2), DOMAINS, adapters=[adapter])
