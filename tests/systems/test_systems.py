"""Systems of many kinds are counted as they really mix their experts, and trained the same."""

import copy

import numpy as np
import pytest
import torch
from systems.home import HOME
from systems.sample_systems import SAMPLE_SYSTEMS
from systems.text_systems import TEXT_SYSTEMS

from mixopt.routing import RouterStats
from mixopt.routing.counters import find_routers

SYSTEMS = [*TEXT_SYSTEMS, *SAMPLE_SYSTEMS, HOME]
STEPS = 4

every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(system):
    torch.manual_seed(0)
    return system.build().train()


def batches(system, count=STEPS, seed=1):
    drawn = torch.Generator().manual_seed(seed)
    return [system.draw(drawn) for _ in range(count)]


def train(system, model, data, stats=None):
    """Take a step for each batch, and return the losses and the last gradients."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for batch in data:
        optimizer.zero_grad()
        if stats is None:
            loss = system.loss(model, batch)
        else:
            with stats.domains(batch.labels, batch.mask):
                loss = system.loss(model, batch)
        loss.backward()
        optimizer.step()
        if system.after_step is not None:
            system.after_step(model)
        losses.append(loss.item())
    return losses, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def recorders(model):
    """Return the module that writes down what it uses, for each router."""
    return {
        router.key: model.get_submodule(router.name.rpartition(".")[0])
        for router in find_routers(model)
    }


def labels_of_tokens(batch):
    """Return the label of each token in a row, and -1 for padding."""
    labels = batch.labels if batch.labels.dim() == 2 else batch.labels[:, None]
    mask = torch.ones_like(labels) if batch.mask is None else batch.mask
    return torch.where(mask.bool(), labels.expand_as(mask), -1).flatten().tolist()


def by_hand(module, data, labels, scored=True):
    """Count, weigh and add up what a module used, one token and one expert after the other."""
    experts = module.used[0].gates_NE.shape[1]
    counts, weights, probability = (np.zeros((labels, experts)) for _ in range(3))
    passes = iter(module.used)
    for batch in data:
        of_tokens = labels_of_tokens(batch)
        for used in [next(passes) for _ in range(len(module.used) // len(data))]:
            span = len(of_tokens) // len(used.gates_NE)
            for token, label in enumerate(of_tokens):
                if label < 0:
                    continue
                probability[label] += used.probability_NE[token // span].numpy()
                for expert, gate in enumerate(used.gates_NE[token // span].tolist()):
                    counts[label, expert] += gate != 0
                    weights[label, expert] += gate if used.weighed else 0
    return counts, weights, probability


@every_system
def test_counts_weights_and_probabilities_are_those_that_a_system_mixes_by(system):
    model, data = built(system), batches(system)
    stats = RouterStats.attach(model, system.labels)
    train(system, model, data, stats)
    total = stats.total()
    of_routers = recorders(model)
    assert set(of_routers) == {layer.key for layer in total.layers}
    real = np.zeros(len(system.labels), int)
    for batch in data:
        of_tokens = np.array(labels_of_tokens(batch))
        real += np.bincount(of_tokens[of_tokens >= 0], minlength=len(system.labels))
    for layer in total.layers:
        module = of_routers[layer.key]
        counts, weights, probability = by_hand(module, data, len(system.labels))
        assert layer.counts_DE.tolist() == counts.tolist()
        runs = len(module.used) // len(data)
        assert layer.tokens_D.tolist() == (runs * real).tolist()
        assert layer.dropped_D.sum() == 0
        # Of each weight at most half of a unit of 2^-20 is lost.
        np.testing.assert_allclose(layer.weight_HDE.sum(0), weights, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(layer.probability_DE, probability, rtol=1e-4, atol=1e-4)


@every_system
def test_what_is_trained_does_not_change_by_being_counted(system):
    plain, counted = built(system), built(system)
    data = batches(system)
    alone = train(system, plain, data)
    watched = train(system, counted, data, RouterStats.attach(counted, system.labels))
    assert alone[0] == watched[0]
    for name, gradient in alone[1].items():
        assert (gradient is None) == (watched[1][name] is None)
        assert gradient is None or torch.equal(gradient, watched[1][name])
    for name, value in plain.state_dict().items():
        assert torch.equal(value, counted.state_dict()[name])


@every_system
def test_a_probe_sees_what_training_counts(system):
    model, data = built(system), batches(system)
    stats = RouterStats.attach(model, system.labels, evaluation=True)
    with stats.probe(probabilities=True) as probe, torch.no_grad():
        for batch in data:
            with stats.domains(batch.labels, batch.mask):
                model(*batch.inputs)
    seen = probe.result()
    for batch in data:
        with stats.domains(batch.labels, batch.mask), torch.no_grad():
            model(*batch.inputs)
    for layer, of_probe, counted in zip(
        seen.layers, seen.assignments().layers, stats.total().layers, strict=True
    ):
        assert of_probe.counts_DE.tolist() == counted.counts_DE.tolist()
        assert of_probe.unused_D.tolist() == counted.unused_D.tolist()
        assert of_probe.tokens_D.tolist() == counted.tokens_D.tolist()
        np.testing.assert_allclose(
            of_probe.weight_HDE.sum(0), counted.weight_HDE.sum(0), rtol=1e-4, atol=1e-3
        )
        by_domain = np.zeros_like(counted.probability_DE)
        np.add.at(by_domain, seen.domain_U, layer.probability_UE)
        np.testing.assert_allclose(by_domain, counted.probability_DE, rtol=1e-4, atol=1e-4)


@every_system
def test_a_system_learns_its_task(system):
    model = built(system)
    losses, _ = train(system, model, batches(system, 60))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_by_weight_each_token_is_divided_among_its_experts():
    system = next(system for system in SYSTEMS if system.name == "TaskExpert")
    model, data = built(system), batches(system)
    stats = RouterStats.attach(model, system.labels)
    train(system, model, data, stats)
    total = stats.total()
    assert {layer.top_k for layer in total.layers} == {4}
    for layer, by_weight in zip(total.layers, total.by_weight().layers, strict=True):
        assert (layer.counts_DE == layer.tokens_D[:, None]).all()  # says nothing: all get all
        assert by_weight.tokens_D.tolist() == layer.tokens_D.tolist()
        assert by_weight.counts_DE.sum(1).tolist() == layer.tokens_D.tolist()
        expected = layer.weight_HDE.sum(0)
        np.testing.assert_allclose(by_weight.counts_DE, expected, atol=2)


def test_a_router_of_a_whole_sequence_counts_its_tokens_or_sequences_by_the_labels():
    system = next(system for system in SYSTEMS if system.name == "Switch-DiT")
    model, (batch,) = built(system), batches(system, 1)
    stats = RouterStats.attach(model, system.labels)
    with stats.domains(batch.labels, batch.mask):
        model(*batch.inputs)
    by_token = stats.window()
    with stats.domains(batch.labels[:, None]):
        # A model whose routers all choose for a sequence may be given a label for each.
        model(*batch.inputs)
    by_sequence = stats.window()
    tokens = batch.mask.shape[1]
    for one, other in zip(by_token.layers, by_sequence.layers, strict=True):
        assert (one.counts_DE == tokens * other.counts_DE).all()


def test_a_denoising_loop_is_counted_step_by_step():
    system = next(system for system in SYSTEMS if system.name == "Switch-DiT")
    model, (batch,) = built(system), batches(system, 1)
    stats = RouterStats.attach(model.eval(), system.labels, evaluation=True)
    noisy = batch.inputs[0]
    with torch.no_grad():
        for step in np.linspace(0.99, 0.01, 6):
            time = torch.full((len(noisy),), step, dtype=torch.float32)
            labels = (time * len(system.labels)).long()
            with stats.domains(labels, batch.mask):
                noisy = noisy - model(noisy, time) / 6
    assert stats.total().tokens_D.tolist() == [2 * batch.mask.sum()] * 3


def test_what_is_counted_survives_a_state_and_frames():
    from mixopt.routing import from_frames, to_frames

    for name in ("TaskExpert", "Union of Experts"):
        system = next(system for system in SYSTEMS if system.name == name)
        model, data = built(system), batches(system)
        stats = RouterStats.attach(model, system.labels)
        train(system, model, data, stats)
        total = stats.total()
        other = RouterStats.attach(copy.deepcopy(built(system)), system.labels)
        other.load_state_dict(stats.state_dict())
        for read in (other.total(), from_frames(*to_frames(total))):
            for one, two in zip(total.layers, read.layers, strict=True):
                for array in one.arrays():
                    assert np.array_equal(one.arrays()[array], two.arrays()[array]), array
