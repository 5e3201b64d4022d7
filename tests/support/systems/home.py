"""HoME (Wang et al. 2024), a recommender's model of many tasks, with and without its remedies.

Without: experts of ReLU, shared ones for all tasks, and a gate for each task over those and the
task's own (the layer of CGC that HoME began from). What is routed is a sample's task, of which a
sample has those that a user has done: most are rare.

With: experts are Swish of a batch norm; shared ones are for a category of tasks, beside one for all
(hierarchy mask); an expert's input goes through a gate of its own, 2 sigmoid(B A x) x (feature
gate); and a task's own experts are added once more by sigmoid(W x) (self gate).

How often each anomaly comes up: PYTHONPATH=tests/support python -m systems.home

Shapes: B samples, J tasks, E experts, F features, W width.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass

import torch
from systems.parts import Batch, Recorded, System
from torch import Tensor, nn

from mixopt.routing import ProbeResult, RouterStats, RouterTap, diagnose_reserved

FEATURES, EXPERT_WIDTH, RANK = 16, 16, 2
CATEGORIES = {"watch": ("click", "long view"), "interaction": ("comment", "collect")}
TASKS = tuple(task for tasks in CATEGORIES.values() for task in tasks)
SHARE = {"click": 1.0, "long view": 0.8, "comment": 0.06, "collect": 0.06}


@dataclass(frozen=True)
class Remedies:
    """Which of HoME's remedies a model has, one against each anomaly."""

    normalised: bool = False
    hierarchy: bool = False
    gates: bool = False


class Expert(nn.Module):
    """An expert, and the gate of features before it."""

    def __init__(self, remedies: Remedies) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, EXPERT_WIDTH)
        self.norm = nn.BatchNorm1d(EXPERT_WIDTH) if remedies.normalised else nn.Identity()
        self.activation = nn.SiLU() if remedies.normalised else nn.ReLU()
        self.of_features = (
            nn.Sequential(nn.Linear(FEATURES, RANK), nn.Linear(RANK, FEATURES))
            if remedies.gates
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.of_features is not None:
            x = 2 * self.of_features(x).sigmoid() * x
        return self.activation(self.norm(self.linear(x)))


def meant_for(remedies: Remedies) -> list[tuple[str, ...]]:
    """Return which tasks each expert is there for."""
    shared = [TASKS, *CATEGORIES.values()] if remedies.hierarchy else [TASKS, TASKS]
    return [*shared, *((task,) for task in TASKS)]


class MultiTask(Recorded):
    """Experts, a gate for each task over those that it may use, and a tower for each task."""

    def __init__(self, remedies: Remedies) -> None:
        super().__init__()
        meant = meant_for(remedies)
        self.specialists = nn.ModuleList(Expert(remedies) for _ in meant)
        allowed = [[task in tasks for tasks in meant] for task in TASKS]
        own = [[tasks == (task,) for tasks in meant] for task in TASKS]
        self.register_buffer("allowed", torch.tensor(allowed))
        self.register_buffer("own", torch.tensor(own).float())
        self.router = nn.Linear(FEATURES, len(TASKS) * len(meant))
        self.self_gate = nn.Linear(FEATURES, len(TASKS)) if remedies.gates else None
        self.towers = nn.ModuleList(nn.Linear(EXPERT_WIDTH, 1) for _ in TASKS)
        self.tap = RouterTap(experts=len(meant))

    def forward(self, x: Tensor) -> Tensor:
        given_BEW = torch.stack([expert(x) for expert in self.specialists], 1)
        read = x.log1p()  # gates see features of one scale, with and without remedies
        logits = self.router(read).unflatten(-1, self.allowed.shape)
        logits = logits.masked_fill(~self.allowed, -1e4)
        probability = logits.softmax(-1)
        gates = probability
        if self.self_gate is not None:
            gates = gates + self.self_gate(read).sigmoid()[..., None] * self.own
        gates = self.use(gates, probability, weighed=True)
        outputs = given_BEW[:, None].expand(-1, len(TASKS), -1, -1)
        self.tap(logits=logits, weights=gates, outputs=outputs)
        mixed_BJW = torch.einsum("bje,bew->bjw", gates, given_BEW)
        return torch.stack([tower(mixed_BJW[:, j]) for j, tower in enumerate(self.towers)], 1)


def draw_actions(drawn: torch.Generator, samples: int = 64) -> Batch:
    """Return samples with the tasks that they have, rare ones seldom, and what they should give.

    Tasks of a category want much the same; features are of very different scales, as counts are.
    """
    fixed = torch.Generator().manual_seed(3)
    common = torch.randn(len(CATEGORIES), FEATURES, generator=fixed)
    apart = torch.randn(len(TASKS), FEATURES, generator=fixed) / 5
    scale = torch.logspace(-0.5, 1, FEATURES)
    x = torch.randn(samples, FEATURES, generator=drawn).exp() * scale
    wanted = apart + common.repeat_interleave(len(TASKS) // len(CATEGORIES), 0)
    standard = (x / scale).log()
    targets = (standard @ wanted.T / FEATURES**0.5).tanh()[..., None]
    mask = torch.rand(samples, len(TASKS), generator=drawn) < torch.tensor(
        [SHARE[task] for task in TASKS]
    )
    mask[:, 0] = True
    labels = torch.arange(len(TASKS)).expand(samples, -1)
    return Batch((x,), targets, labels, mask.long())


HOME = System(
    "HoME",
    "task",
    TASKS,
    lambda: MultiTask(Remedies(normalised=True, hierarchy=True, gates=True)),
    draw_actions,
)


def trained(model: MultiTask, *, steps: int = 600, seed: int = 1) -> MultiTask:
    """Train a model: at first on frequent tasks alone, as a service has those for longer."""
    drawn = torch.Generator().manual_seed(seed + 1)
    gates = [*model.router.parameters()]
    rest = [p for p in model.parameters() if all(p is not gate for gate in gates)]
    optimizer = torch.optim.Adam([{"params": gates, "lr": 5e-3}, {"params": rest, "lr": 1e-2}])
    for step in range(steps):
        batch = draw_actions(drawn)
        if step < steps / 3:
            batch.mask[:, 2:] = 0
        loss = HOME.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def seen(model: MultiTask, batches: int = 10) -> ProbeResult:
    """Return a probe of samples that were not trained on."""
    drawn = torch.Generator().manual_seed(999)
    stats = RouterStats.attach(model.eval(), TASKS)
    with stats.probe() as probe, torch.no_grad():
        for _ in range(batches):
            batch = draw_actions(drawn)
            with stats.domains(batch.labels, batch.mask):
                model(*batch.inputs)
    stats.detach()
    return probe.result()


def main(seeds: int = 4) -> None:
    """Write how many of several models have each anomaly, without and with the remedies."""
    torch.set_num_threads(1)
    every = Remedies(normalised=True, hierarchy=True, gates=True)
    for name, remedies in (("without", Remedies()), ("with", every)):
        found: Counter[str] = Counter()
        for seed in range(seeds):
            torch.manual_seed(seed)
            probe = seen(trained(MultiTask(remedies), seed=seed))
            reserved = {"0": meant_for(remedies)}
            wrong = diagnose_reserved(probe.assignments(), reserved, probe=probe)
            found.update({one.kind for one in wrong})
        sys.stdout.write(f"{name}: {dict(sorted(found.items()))} of {seeds}\n")


if __name__ == "__main__":
    main()
