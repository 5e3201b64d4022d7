"""Systems that route samples: by task, diffusion step, environment, or over whole models.

Each is written from the formulas of its paper, as small as they allow.

Shapes: B samples, S tokens of one, J tasks, W width, E experts.
"""

from __future__ import annotations

import math

import torch
from systems.parts import (
    SAMPLES,
    TOKENS,
    WIDTH,
    Batch,
    Recorded,
    System,
    of_sequences,
    top_k_gates,
)
from torch import Tensor, nn

from mixopt.routing import RouterTap

TASKS = ("depth", "normals", "edges")
BINS = ("early", "middle", "late")
ENVIRONMENTS = ("damped", "driven", "unstable")


class TaskGates(Recorded):
    """One layer of TaskExpert (Ye and Xu 2023): all experts, mixed for each task by its own gate.

    The gate of a task sees the features and the memory that the task has from earlier layers:
    g_t = softmax(W_t [x, m_t]), f_t = sum over experts of g_tn E_n(x), and m_t becomes m_t + f_t.
    """

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(2 * WIDTH, experts) for _ in TASKS)
        self.specialists = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(experts))
        self.tap = RouterTap(experts=experts)

    def forward(self, x: Tensor, memory_BJW: Tensor) -> Tensor:
        seen = torch.cat([x[:, None].expand_as(memory_BJW), memory_BJW], -1)
        logits = torch.stack([gate(seen[:, j]) for j, gate in enumerate(self.gates)], 1)
        gates = self.use(logits.softmax(-1), logits.softmax(-1), weighed=True)
        self.tap(logits=logits, weights=gates)
        given = torch.stack([expert(x).tanh() for expert in self.specialists], 1)
        return memory_BJW + torch.einsum("bje,bew->bjw", gates, given)


class TaskExpert(nn.Module):
    """Two layers of task gates; what is routed is a sample's task, of which it has several."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.randn(len(TASKS), WIDTH))
        self.layers = nn.ModuleList([TaskGates(), TaskGates()])
        self.heads = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in TASKS)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.memory.expand(len(x), -1, -1)
        for layer in self.layers:
            memory = layer(x, memory)
        return torch.stack([head(memory[:, j]) for j, head in enumerate(self.heads)], 1)


def draw_tasks(drawn: torch.Generator) -> Batch:
    """Return samples that have several tasks each; what a sample lacks is masked."""
    fixed = torch.Generator().manual_seed(7)
    maps_JWW = torch.randn(len(TASKS), WIDTH, WIDTH, generator=fixed) / WIDTH**0.5
    x = torch.randn(SAMPLES, WIDTH, generator=drawn)
    mask = torch.rand(SAMPLES, len(TASKS), generator=drawn) < 0.7
    mask[:, 0] = True
    labels = torch.arange(len(TASKS)).expand(SAMPLES, -1)
    targets = torch.einsum("bw,jwv->bjv", x, maps_JWW).tanh()
    return Batch((x,), targets, labels, mask.long())


class StepGate(Recorded):
    """The experts of a block of Switch-DiT (Park et al. 2024): the gate sees the step alone.

    g is softmax of the top K of W_g emb(t), and the output a shared expert's plus the gated ones'.
    """

    def __init__(self, experts: int = 4, top_k: int = 2) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(WIDTH, experts)
        self.common = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Parameter(torch.randn(experts, WIDTH, WIDTH) / WIDTH**0.5)
        self.tap = RouterTap(experts=experts, top_k=top_k, span="sequence")

    def forward(self, x: Tensor, step_BW: Tensor) -> Tensor:
        logits = self.router(step_BW)
        top, ids = logits.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(logits).scatter(-1, ids, top.softmax(-1))
        gates = self.use(gates, logits.softmax(-1), weighed=True)
        self.tap(ids, logits, weights=gates.gather(-1, ids))
        return self.common(x) + torch.einsum("be,bsw,ewv->bsv", gates, x, self.up)


class SwitchDiT(nn.Module):
    """Two blocks that say what noise there is in a sample at a step of a diffusion."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([StepGate(), StepGate()])
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, time_B: Tensor) -> Tensor:
        frequency = torch.exp(-math.log(100) * torch.arange(WIDTH // 2) / (WIDTH // 2))
        angle = 10 * time_B[:, None] * frequency
        step = torch.cat([angle.sin(), angle.cos()], -1)
        for block in self.blocks:
            x = x + block(x, step)
        return self.head(x)


def draw_steps(drawn: torch.Generator) -> Batch:
    """Return noisy samples, their steps as labels by thirds, and the noise as the target."""
    time = torch.rand(SAMPLES, generator=drawn)
    clean = torch.randn(SAMPLES, 1, WIDTH, generator=drawn).expand(-1, TOKENS, -1)
    noise = torch.randn(SAMPLES, TOKENS, WIDTH, generator=drawn)
    angle = (time * math.pi / 2)[:, None, None]
    noisy = angle.cos() * clean + angle.sin() * noise
    mask = torch.ones(SAMPLES, TOKENS, dtype=torch.long)
    return Batch((noisy, time), noise, (time * len(BINS)).long(), mask)


class MixtureOfThoughts(Recorded):
    """Mixture of Thoughts (Fein-Ashley et al. 2025): a router chooses among whole frozen models.

    The top K of softmax(W q) are active for a query q; what the first of them thinks attends to
    what the active ones think, in a space that all are projected to, and its model goes on.
    """

    def __init__(self, experts: int = 4, top_k: int = 2) -> None:
        super().__init__()
        self.top_k = top_k
        self.models = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
            for _ in range(experts)
        ).requires_grad_(requires_grad=False)
        self.into = nn.Parameter(torch.randn(experts, WIDTH, WIDTH) / WIDTH**0.5)
        self.back = nn.Parameter(torch.randn(experts, WIDTH, WIDTH) / WIDTH**0.5)
        self.router = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, experts))
        self.head = nn.Linear(WIDTH, WIDTH)
        self.tap = RouterTap(experts=experts, top_k=top_k, span="sequence")

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x.mean(1))
        probability = logits.softmax(-1)
        ids, chosen = top_k_gates(probability, self.top_k)
        gates = self.use(chosen / chosen.sum(-1, keepdim=True), probability, weighed=True)
        self.tap(ids, logits, weights=gates.gather(-1, ids))
        thoughts = torch.stack([model(x) for model in self.models], 2)
        latent = torch.einsum("bsew,ewv->bsev", thoughts, self.into)
        first = ids[:, 0]
        rows = torch.arange(len(x))
        query = latent[rows, :, first]
        weights = torch.einsum("bsw,bsew->bse", query, latent) / WIDTH**0.5
        active = weights.masked_fill((gates == 0)[:, None], -torch.inf).softmax(-1)
        mixed = torch.einsum("bse,be,bsev->bsv", active, gates, latent)
        added = torch.einsum("bsv,bvw->bsw", mixed, self.back[first])
        return self.head(thoughts[rows, :, first] + added)


class MixER(Recorded):
    """MixER (Nzoyem et al. 2025): an expert for each family of dynamical systems, top 1.

    An environment has a context that is learnt; the gate is linear in it. It is not trained by
    gradients: contexts are clustered by K-means, and W solves least squares from contexts to the
    clusters' numbers as one-hot rows.
    """

    def __init__(self, experts: int = 3) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.randn(len(ENVIRONMENTS), WIDTH))
        self.register_buffer("gate", torch.eye(experts, WIDTH + 1))
        self.field = nn.ModuleList(
            nn.Sequential(nn.Linear(2 + WIDTH, 16), nn.Tanh(), nn.Linear(16, 2))
            for _ in range(experts)
        )
        self.tap = RouterTap(experts=experts, top_k=1, span="sequence")

    def forward(self, states_BS2: Tensor, environment_B: Tensor) -> Tensor:
        context = self.context[environment_B]
        logits = nn.functional.pad(context, (0, 1), value=1.0) @ self.gate.T
        ids = logits.argmax(-1, keepdim=True)
        gates = torch.zeros_like(logits).scatter(-1, ids, 1.0)
        gates = self.use(gates, logits.softmax(-1))
        self.tap(ids, logits)
        wide = context[:, None].expand(-1, states_BS2.shape[1], -1)
        seen = torch.cat([states_BS2, wide], -1)
        given = torch.stack([field(seen) for field in self.field], 1)
        return torch.einsum("be,besv->bsv", gates, given)

    @torch.no_grad()
    def regroup(self) -> None:
        """Cluster the contexts, from the first ones as centres, and solve for the gate."""
        experts = len(self.field)
        centres = self.context[:experts].clone()
        for _ in range(5):
            nearest = torch.cdist(self.context, centres).argmin(-1)
            for e in range(experts):
                if (nearest == e).any():
                    centres[e] = self.context[nearest == e].mean(0)
        wanted = nn.functional.one_hot(nearest, experts).float()
        known = nn.functional.pad(self.context, (0, 1), value=1.0)
        self.gate.copy_((torch.linalg.pinv(known) @ wanted).T)


def draw_trajectories(drawn: torch.Generator) -> Batch:
    """Return points of linear systems, of several environments, and their time derivatives."""
    systems = torch.tensor(
        [[[-0.5, 1.0], [-1.0, -0.5]], [[0.0, 2.0], [-2.0, 0.0]], [[0.5, 0.0], [0.0, -1.0]]]
    )
    environment = torch.randint(len(ENVIRONMENTS), (SAMPLES,), generator=drawn)
    states = torch.randn(SAMPLES, TOKENS, 2, generator=drawn)
    change = torch.einsum("bsv,bwv->bsw", states, systems[environment])
    mask = torch.ones(SAMPLES, TOKENS, dtype=torch.long)
    return Batch((states, environment), change, environment, mask)


class WorldModel(Recorded):
    """The latent dynamics of ScaleZero (Pu et al. 2025): a shared expert and routed ones by task.

    It is unrolled: the same layer runs once for each step that is looked ahead, and routes anew.
    """

    ahead = 3

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, experts)
        self.common = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Parameter(torch.randn(experts, WIDTH, WIDTH) / WIDTH**0.5)
        self.tap = RouterTap(experts=experts, top_k=1, runs=self.ahead)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.ahead):
            logits = self.router(x)
            probability = logits.softmax(-1)
            ids, chosen = top_k_gates(probability, 1)
            gates = self.use(chosen, probability)
            self.tap(ids, logits)
            routed = torch.einsum("bse,bsw,ewv->bsv", gates, x, self.up)
            x = x + (self.common(x) + routed).tanh()
        return x


SAMPLE_SYSTEMS = (
    System("TaskExpert", "task", TASKS, TaskExpert, draw_tasks),
    System("Switch-DiT", "diffusion step", BINS, SwitchDiT, draw_steps),
    System(
        "Mixture of Thoughts",
        "task of the query",
        ("mathematics", "code", "chat"),
        MixtureOfThoughts,
        of_sequences(3),
    ),
    System(
        "MixER",
        "environment",
        ENVIRONMENTS,
        MixER,
        draw_trajectories,
        after_step=lambda model: model.regroup(),
    ),
    System("ScaleZero", "task", ("pong", "chess", "walker"), WorldModel, of_sequences(3)),
)
