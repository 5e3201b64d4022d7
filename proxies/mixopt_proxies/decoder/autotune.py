"""Choose how many trials to step together: by rule, refined by a cheap measurement.

Stacking fills a machine that one small model leaves idle; once it is full, more members only
push each other out of the cache. On a CPU that point is near 2,000 tokens a step; on a GPU it
is expected at 32,000 (a roofline estimate, not measured).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from mixopt.mixture import Mixture
from mixopt.trials import Trial
from mixopt_proxies.decoder.loss import CHUNK_LOGITS, LARGE_VOCABULARY
from mixopt_proxies.decoder.named_sizes import DecoderSize
from mixopt_proxies.decoder.passes import Passes
from mixopt_proxies.decoder.step_graph import FIRST_STEPS
from mixopt_proxies.decoder.trainer import StackTrainer

FULL_TOKENS = {"cpu": 2048, "cuda": 32_768}
# Of all memory of a host, which other workers share, and of what is free on a GPU.
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.5}
SECONDS_EACH = 0.5
LEAST_STEPS = 3
GAIN = 1.05


def members_by_rule(size: DecoderSize, vocab_size: int, device: torch.device) -> int:
    """Return the power of two that brings the tokens of a step to where a machine is full."""
    most = usable_memory(device) - shared_bytes(vocab_size, device)
    fitting = max(0, most) // member_bytes(size, vocab_size)
    return power_of_two(min(FULL_TOKENS[device.type] // size.step_tokens, fitting))


def candidates(rule: int) -> list[int]:
    """Return the group sizes to measure: the rule's, its half and its double."""
    return [rule] if rule == 1 else [rule // 2, rule, rule * 2]


def fastest(sizes: list[int], rate: Callable[[int], float]) -> int:
    """Return the group size with the best rate; a larger one must be faster by `GAIN`."""
    if len(sizes) == 1:
        return sizes[0]
    best, best_rate = sizes[0], rate(sizes[0])
    for members in sizes[1:]:
        found = rate(members)
        if found > GAIN * best_rate:
            best, best_rate = members, found
    return best


class Tuner:
    """Takes steps of a stack on random tokens: to measure it, or to have it compiled."""

    def __init__(
        self,
        members: int,
        vocab_size: int,
        passes: Passes,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        size = passes.size
        self._device = device
        self._step_tokens = members * size.step_tokens
        trials = [Trial(f"tune-{k}", Mixture({"any": 1.0}), seed=k) for k in range(members)]
        self._trainer = StackTrainer(
            trials, vocab_size, passes, steps=1, device=device, dtype=dtype
        )
        shape = (members, size.batch, size.sequence_length + 1)
        generator = torch.Generator().manual_seed(0)
        self._tokens = torch.randint(vocab_size, shape, generator=generator).to(device)

    def step(self) -> None:
        """Take a step and wait for it."""
        self._trainer.step(self._tokens)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def rate(self) -> float:
        """Return the tokens per second of half a second of steps; 0 if memory is too short.

        What is measured is what training will run: where steps are recorded, recorded ones.
        """
        try:
            for _ in range(FIRST_STEPS + 1 if self._device.type == "cuda" else 1):
                self.step()
        except torch.OutOfMemoryError:
            return 0.0
        steps, start = 0, time.perf_counter()
        while steps < LEAST_STEPS or time.perf_counter() - start < SECONDS_EACH:
            self.step()
            steps += 1
        return steps * self._step_tokens / (time.perf_counter() - start)


def usable_memory(device: torch.device) -> int:
    """Return the bytes of memory to fill: a share of the host's, or of what is free on a GPU."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(MEMORY_SHARE["cuda"] * (free + kept))
    import psutil

    return int(MEMORY_SHARE["cpu"] * psutil.virtual_memory().total)


def shared_bytes(vocab_size: int, device: torch.device) -> int:
    """Return the memory of what all members take in turns: a large vocabulary's logits, fp32."""
    return 4 * CHUNK_LOGITS[device.type] if vocab_size >= LARGE_VOCABULARY else 0


def member_bytes(size: DecoderSize, vocab_size: int) -> int:
    """Estimate the memory of one member: five fp32 copies of the weights, and activations.

    A block keeps about 12 values a channel and the scores of explicit attention; with experts, each
    token's rows once for each of its experts besides.
    """
    inner, copies = size.ff, 0
    if size.experts is not None:
        inner = size.experts.top_k * size.experts.expert_ff + size.experts.shared_ff
        copies = 4 * size.experts.top_k * size.width
    # Weights, two moments, gradients as they come and in one piece, and a copy in bf16.
    states = 22 * size.parameters(vocab_size)
    logits = 0 if vocab_size >= LARGE_VOCABULARY else 2 * vocab_size
    channels = size.layers * (10 * size.width + 4 * inner + copies) + logits
    scores = size.layers * size.heads * min(size.sequence_length, 256)
    return states + 4 * size.step_tokens * (channels + scores)


def power_of_two(number: int) -> int:
    """Return the largest power of two that is not above a number, at least 1."""
    return 1 << max(number.bit_length() - 1, 0) if number > 0 else 1
