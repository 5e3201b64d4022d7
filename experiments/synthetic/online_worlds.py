"""Random worlds for estimators to run in, and the best that a known world allows.

The sizes are those of a small language model of 1,000 steps of 16 sequences: own losses that move
by 0.1 to 0.4 nats for a factor e of own share, a best static mixture 8 to 30 thousandths below
stratified on the mean, and little transfer. `KINDS` says what each kind of world changes; the
adverse ones break what a curve fit assumes.

Shapes: D domains, M evaluation domains, S segments of a schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from online_dynamics import LEAST_SHARE, World

from mixopt.system import Array

KINDS = {
    "plain": "little transfer, moderate recency",
    "transfer": "each domain's sequences are worth 0 to 0.4 to every other",
    "interference": "half of the domains cost others: worth -0.15 to 0.1",
    "anneal": "losses also fall with the learning rate, by 0 to 0.4 nats, not alike",
    "recency": "recency three times as strong and not alike",
    "noise domain": "one domain of iid noise with strong recency, one that is learned at once",
}
DRAWS = dict(zip(sorted(KINDS), (0, 1, 2, 3, 4, 6), strict=True))  # of the worlds of each kind
OUTSIDE_SOURCES = 3  # training domains that an outside target has something to gain from, about
SEGMENTS = 12
ITERATIONS = 300


def make_world(
    kind: str = "plain", domains: int = 5, seed: int = 0, objective: str = "mean", jitter: float = 1
) -> World:
    """Draw a world.

    Args:
        kind: One of `KINDS`.
        domains: Training domains, >= 2.
        seed: Of the draw.
        objective: `mean` over the training domains, `one` of them, a target that is `outside` of
            them, or one that is, and that all of them serve `alike`.
        jitter: Of held-out losses, 1 being 0.01 nats; training noise is scaled alike.

    Returns:
        The world, of the default length.
    """
    rng = np.random.default_rng((seed, domains, DRAWS[kind]))
    is_outside = objective in {"outside", "alike"}
    count = domains + is_outside
    per_domain = 16_000 / domains
    uniform: Callable[..., Array] = rng.uniform
    world = World(
        floor_M=uniform(1.0, 3.0, count),
        height_M=uniform(2.0, 5.0, count),
        scale_M=per_domain * np.exp(uniform(np.log(0.005), np.log(0.1), count)),
        exponent_M=uniform(0.15, 0.4, count),
        transfer_MD=np.eye(count, domains) + uniform(0, 0.08, (count, domains)),
        recency_MD=0.07 * np.eye(count, domains) * uniform(0.6, 1.4, (count, 1)),
        anneal_M=np.zeros(count),
        objective_M=_objective(objective, domains, rng),
        noise=0.35 * jitter,
        jitter=0.01 * jitter,
    )
    if is_outside:
        world = _with_outside(world, rng, alike=objective == "alike")
    return _adverse(world, kind, rng)


def _objective(objective: str, domains: int, rng: np.random.Generator) -> Array:
    if objective in {"outside", "alike"}:
        return np.eye(domains + 1)[domains]
    if objective == "mean":
        return np.full(domains, 1 / domains)
    return np.eye(domains)[rng.integers(domains)]


def _with_outside(world: World, rng: np.random.Generator, *, alike: bool) -> World:
    """Let the last evaluation domain learn from a few training domains, or from all of them."""
    count = world.transfer_MD.shape[1]
    worth_D = rng.gamma(0.5, 1.0, count)
    worth_D /= np.sort(worth_D)[-OUTSIDE_SOURCES:].sum()
    fresh_D = 0.1 * worth_D * rng.uniform(0.5, 1.5, count)
    if alike:
        worth_D, fresh_D = np.full(count, worth_D.mean()), np.full(count, fresh_D.mean())
    transfer_MD, recency_MD = world.transfer_MD.copy(), world.recency_MD.copy()
    transfer_MD[-1], recency_MD[-1] = 0.03 + worth_D, fresh_D
    return replace(world, transfer_MD=transfer_MD, recency_MD=recency_MD)


def _adverse(world: World, kind: str, rng: np.random.Generator) -> World:
    count, domains = world.transfer_MD.shape
    others_MD = 1 - np.eye(count, domains)
    if kind == "transfer":
        more_MD = others_MD * rng.uniform(0, 0.4, (count, domains))
        return replace(world, transfer_MD=world.transfer_MD + more_MD)
    if kind == "interference":
        costs_MD = others_MD * rng.uniform(-0.23, 0.0, (count, domains))
        costs_MD[:, rng.permutation(domains)[: (domains + 1) // 2]] = 0.0
        return replace(world, transfer_MD=world.transfer_MD + costs_MD * min(1.0, 4 / domains))
    if kind == "anneal":
        return replace(world, anneal_M=rng.uniform(0, 0.4, count))
    if kind == "recency":
        return replace(world, recency_MD=world.recency_MD * rng.uniform(1.5, 4.5, (count, 1)))
    return _with_noise_domain(world) if kind == "noise domain" else world


def _with_noise_domain(world: World) -> World:
    height_M, exponent_M = world.height_M.copy(), world.exponent_M.copy()
    scale_M, recency_MD = world.scale_M.copy(), world.recency_MD.copy()
    height_M[0], recency_MD[0, 0] = 0.02, 0.4
    height_M[1], exponent_M[1], scale_M[1] = 1.0, 0.8, scale_M.min() / 4
    return replace(
        world, height_M=height_M, exponent_M=exponent_M, scale_M=scale_M, recency_MD=recency_MD
    )


def static_loss(world: World, weights_D: Array) -> float:
    """Return the final objective of training on one mixture throughout, without noise."""
    return _final(world, np.atleast_2d(weights_D), np.array([world.steps]))[0]


def best_static(world: World) -> tuple[Array, float]:
    """Return the best mixture to train on throughout, shape (D,), and its objective."""
    best_SD, loss = _descend(world, np.array([world.steps]))
    return best_SD[0], loss


def best_schedule(world: World) -> tuple[Array, float]:
    """Return the best schedule of `SEGMENTS` mixtures, shape (S, D), and its objective."""
    ends = np.linspace(0, world.steps, SEGMENTS + 1).astype(int)[1:]
    return _descend(world, ends)


def _descend(world: World, ends: Array) -> tuple[Array, float]:
    """Minimise over a mixture a segment by exponentiated gradient; convex where T >= 0."""
    domains = len(world.domains)
    best_SD, pace = np.full((len(ends), domains), 1 / domains), 1.0
    loss, slope_SD = _final(world, best_SD, ends)
    for _ in range(ITERATIONS):
        scaled_SD = slope_SD / max(np.abs(slope_SD).max(), 1e-12)
        tried_SD = best_SD * np.exp(-pace * scaled_SD)
        tried_SD /= tried_SD.sum(axis=1, keepdims=True)
        tried, tried_slope_SD = _final(world, tried_SD, ends)
        if tried < loss:
            best_SD, loss, slope_SD, pace = tried_SD, tried, tried_slope_SD, min(pace * 1.3, 100.0)
        else:
            pace /= 2
    return best_SD, loss


def _final(world: World, mixtures_SD: Array, ends: Array) -> tuple[float, Array]:
    """Return the final objective of a schedule and its gradient, shape (S, D)."""
    pulls = world.rates / world.memory
    remaining = np.append(np.cumprod((1 - pulls)[::-1])[::-1][1:], 1.0) * pulls
    starts = np.concatenate([[0], ends[:-1]])
    late_S = np.array([remaining[a:b].sum() for a, b in zip(starts, ends, strict=True)])
    seen_S = (ends - starts) * world.batch
    start_D = np.full(mixtures_SD.shape[1], (1 - late_S.sum()) / mixtures_SD.shape[1])
    seen_D, late_D = seen_S @ mixtures_SD, start_D + late_S @ mixtures_SD
    loss = float(world.objective_M @ world.losses(seen_D, late_D))
    fresh_D = (world.objective_M @ world.recency_MD) / late_D * (late_D > LEAST_SHARE)
    slope_SD = -np.outer(seen_S, world.values(seen_D)) - np.outer(late_S, fresh_D)
    return loss, slope_SD
