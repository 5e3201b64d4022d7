"""How many trials to step together: by rule, and measured near it where that is cheap.

Stacking fills a machine that one small model leaves idle; once it is full, more members only
push each other out of the cache. On a CPU that point is near 2,000 tokens a step for eager
code, and near 1,000 for compiled code, whose small operations cost less; on a GPU it is
expected at 32,000 and more.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from mixopt.mixture import Mixture
from mixopt.proxy import Trial
from mixopt_proxies.passes import Passes
from mixopt_proxies.sizes import Size
from mixopt_proxies.trainer import StackTrainer

FULL_TOKENS = {"cpu": 2048, "cuda": 32_768}
FULL_TOKENS_COMPILED = {"cpu": 1024, "cuda": 32_768}
SECONDS_EACH = 1.0
GAIN = 1.05
MEMORY_SHARE = 0.5


def members_by_rule(size: Size, device: torch.device, *, compiled: bool) -> int:
    """Return the power of two that brings the tokens of a step to where a machine is full."""
    full = (FULL_TOKENS_COMPILED if compiled else FULL_TOKENS)[device.type]
    return power_of_two(full // size.step_tokens)


def candidates(size: Size, vocab_size: int, device: torch.device) -> list[int]:
    """Return the group sizes to measure: the rule's, its half and its double, if they fit."""
    rule = members_by_rule(size, device, compiled=False)
    most = power_of_two(int(free_memory(device) * MEMORY_SHARE / member_bytes(size, vocab_size)))
    near = {max(1, rule // 2), rule, rule * 2 if rule > 1 else 1}
    return sorted({min(members, most) for members in near})


def fastest(
    sizes: list[int], rate: Callable[[int], float], gain: float = GAIN
) -> int:
    """Return the group size with the best rate; a larger one must be faster by `gain`."""
    best, best_rate = sizes[0], rate(sizes[0]) if len(sizes) > 1 else 0.0
    for members in sizes[1:]:
        found = rate(members)
        if found > gain * best_rate:
            best, best_rate = members, found
    return best


def measured_rate(
    members: int, vocab_size: int, passes: Passes, device: torch.device, dtype: torch.dtype
) -> float:
    """Return the tokens per second of a stack on random tokens, over about a second."""
    size = passes.size
    trials = [Trial(f"tune-{k}", Mixture({"any": 1.0}), seed=k) for k in range(members)]
    trainer = StackTrainer(trials, vocab_size, passes, steps=1, device=device, dtype=dtype)
    shape = (members, size.batch, size.sequence_length + 1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab_size, shape, generator=generator).to(device)
    trainer.step(0, tokens)
    synchronize(device)
    steps, start = 0, time.perf_counter()
    while steps < 3 or time.perf_counter() - start < SECONDS_EACH:
        trainer.step(0, tokens)
        steps += 1
        synchronize(device)
        if steps >= 3 and time.perf_counter() - start > SECONDS_EACH / 2:
            break
    return steps * members * size.step_tokens / (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> int:
    """Return how many bytes are free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)


def member_bytes(size: Size, vocab_size: int) -> int:
    """Estimate the memory of one member: four fp32 copies of the weights, and activations.

    A block keeps about 12 values a channel and the scores of explicit attention.
    """
    states = 18 * size.parameters(vocab_size)
    channels = size.layers * (10 * size.width + 4 * size.ff) + min(vocab_size, 2048)
    scores = size.layers * size.heads * min(size.sequence_length, 256)
    return states + 4 * size.step_tokens * (channels + scores)


def power_of_two(number: int) -> int:
    """Return the largest power of two that is not above a number, at least 1."""
    return 1 << max(number.bit_length() - 1, 0) if number > 0 else 1
