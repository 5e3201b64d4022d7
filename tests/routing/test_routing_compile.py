"""Under torch.compile experts are counted right, or it is said that they are not."""

import pytest
import torch
from counted_by_hand import run
from routing_job import DOMAINS, batches, tiny

from mixopt.errors import RoutingError
from mixopt.routing import RouterStats

BACKEND = "aot_eager"  # traces as Inductor does, and compiles nothing
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # torch's own
]


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def expected():
    model = tiny()
    return counts(model, RouterStats.attach(model, DOMAINS))


def counts(call, stats, **options):
    run(call, stats, batches(), **options)
    return stats.total().to_json()


def test_a_model_that_is_compiled_after_attaching_is_one_graph(expected):
    model = tiny()
    stats = RouterStats.attach(model, DOMAINS)
    call = torch.compile(model, backend=BACKEND, fullgraph=True)
    assert counts(call, stats) == expected


def test_hooks_that_come_after_the_first_compiled_call_count(expected):
    model = tiny()
    call = torch.compile(model, backend="eager")
    call(batches()[0][0])
    stats = RouterStats.attach(call, DOMAINS)
    assert counts(call, stats) == expected


def test_compiled_code_that_does_not_know_of_the_hooks_is_an_error(monkeypatch):
    model = tiny()
    call = torch.compile(model, backend="eager")
    call(batches()[0][0])
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)
    stats = RouterStats.attach(model, DOMAINS)
    with pytest.raises(RoutingError, match="ran 0 times in 1 batches.*torch.compiler.reset"):
        counts(call, stats)


def compiled_by_layer():
    model = tiny(reentrant=False)
    stats = RouterStats.attach(model, DOMAINS)
    for layer in model.layers:
        layer.compile(backend=BACKEND)
    return model, stats


def test_layers_that_are_compiled_one_by_one_count_each_for_itself(expected):
    assert counts(*compiled_by_layer()) == expected


def test_a_backward_pass_inside_that_repeats_compiled_layers_is_an_error():
    with pytest.raises(RoutingError, match="ran 2 times in 1 batches.*no backward pass"):
        counts(*compiled_by_layer(), backward_inside=True)


def test_checkpointing_inside_compiled_code_counts_once(expected):
    model = tiny(reentrant=False)
    stats = RouterStats.attach(model, DOMAINS)
    call = torch.compile(model, backend=BACKEND)
    assert counts(call, stats, backward_inside=True) == expected
