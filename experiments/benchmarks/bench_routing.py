"""Measure what counting the experts costs beside a training step, on a CPU.

    python experiments/benchmarks/bench_routing.py --out experiments/benchmarks/results_routing.md

A step is forward, backward and AdamW of an OLMoE of some 10M parameters. What counting adds is
measured alone, by calling the hooks with what the routers have returned, because the difference of
two steps is smaller than their noise. Times are CPU time of one thread, medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import OlmoeConfig, OlmoeForCausalLM

from mixopt.routing import RouterStats

DOMAINS = [f"domain{d}" for d in range(8)]
BATCH, LENGTH = 8, 256
TARGETS = {"counts": 0.1, "all statistics": 1.0}  # percent of a step


def model() -> Any:
    """Return an OLMoE of 6 layers, 16 experts and 4 of them for a token."""
    torch.manual_seed(0)
    config = OlmoeConfig(
        vocab_size=4096,
        hidden_size=192,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        num_experts=16,
        num_experts_per_tok=4,
        use_cache=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return OlmoeForCausalLM(config).train()


def medians(work: Callable[[], object], times: int) -> float:
    """Return the median CPU seconds of some work, after a first time."""
    work()
    seconds = []
    for _ in range(times):
        before = time.process_time()
        work()
        seconds.append(time.process_time() - before)
    return statistics.median(seconds)


def step_seconds(net: Any, tokens: Tensor, times: int) -> float:
    """Return what a training step takes."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def step() -> None:
        net(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return medians(step, times)


def counting_seconds(net: Any, batch: tuple[Tensor, ...], times: int, *, everything: bool) -> Any:
    """Return what one batch adds: in all, and by layer in its hook."""
    tokens, ids, mask = batch
    stats = RouterStats.attach(net, DOMAINS, probabilities=everything)
    routers = [m for m in net.modules() if type(m).__name__ == "OlmoeTopKRouter"]
    hooks = [next(iter(router._forward_hooks.values())) for router in routers]
    outputs: list[Any] = []
    handles = [r.register_forward_hook(lambda m, i, o: outputs.append(o)) for r in routers]
    with stats.domains(ids, mask), torch.no_grad():
        net(input_ids=tokens)
    for handle in handles:
        handle.remove()
    calls = list(zip(hooks, routers, outputs, strict=True))

    def count() -> None:
        with stats.domains(ids, mask):
            for hook, router, output in calls:
                hook(router, (), output)

    seconds = medians(count, times)
    reduction = medians(stats.reduce, 20)
    said = medians(stats.summary, 5)
    stats.detach()
    return seconds, reduction, said


def machine() -> str:
    """Return what this ran on."""
    info = Path("/proc/cpuinfo")
    names = []
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    processor = names[0].split(":")[1].strip() if names else platform.processor()
    return (
        f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python"
        f" {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--times", type=int, default=200, help="of the hooks")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    net = model()
    tokens = torch.randint(3, 4096, (BATCH, LENGTH))
    mask = torch.ones_like(tokens)
    mask[0, 200:] = 0
    batch = tokens, torch.arange(BATCH) % len(DOMAINS), mask
    step = step_seconds(net, tokens, options.steps)
    parameters = sum(p.numel() for p in net.parameters())
    command = f"bench_routing.py --steps {options.steps} --times {options.times}"
    about = (
        f"{machine()}; OLMoE of {parameters / 1e6:.1f}M parameters, 6 layers of 16 experts, 4 of a"
        f" token, {BATCH * LENGTH} tokens, {len(DOMAINS)} domains."
    )
    lines = [
        "# What counting experts costs",
        "",
        f"`python experiments/benchmarks/{command}`: CPU time of one thread, medians.",
        "",
        about,
        "",
        "| what | CPU | of a step | target |",
        "|---|---|---|---|",
        f"| training step | {1e3 * step:.0f} ms | 100% | |",
    ]
    for name, everything in (("counts", False), ("all statistics", True)):
        cost, reduction, said = counting_seconds(net, batch, options.times, everything=everything)
        share = 100 * cost / step
        lines.append(
            f"| {name}, a batch | {1e3 * cost:.3f} ms | {share:.3f}% | <= {TARGETS[name]}% |"
        )
        lines.append(f"| {name}, reduce | {1e3 * reduction:.2f} ms | once a window | |")
        lines.append(f"| {name}, summary | {1e3 * said:.1f} ms | when asked | |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
