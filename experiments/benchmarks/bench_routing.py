"""Measure what RouterStats and the online driver take of a training step, with and without.

    python experiments/benchmarks/bench_routing.py [--tokens 512] [--compile] [--seconds 100]

A step is a Mixtral of transformers with grouped products: batch from a `MixtureLoader`, forward,
backward, AdamW. Steps of all kinds take turns, one of each in a round, in an order that is drawn
anew. What a kind adds is the median over rounds of its step less the step without in the same
round, with the interval that holds 95% of 1,000 medians of resampled rounds. Times are CPU time of
a process with one thread, in which busy neighbours show less than in wall time.

`control` is a step without, of a second model of the same weights: what it differs by is noise.
RouterStats is on that second model, and is compared with `control`, whose hooks are idle.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from mixopt.loading import MixtureDataset, MixtureLoader
from mixopt.online import Driver, DriverOptions, make_estimator
from mixopt.routing import RouterStats
from mixopt.sampling import MixtureSampler

DOMAINS = 8
VOCABULARY = 2048
LENGTH = 128
EXPERTS, TOP_K = 16, 4
STEPS = 1_000_000  # of the run that an estimator is told of
EVERY = 10  # steps between sums: those of a driver, and lines of metrics


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--tokens", type=int, default=512, help="of a step")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=100, help="how long to take turns")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kinds = make_kinds(options)
    print(table(options, kinds, take_turns(kinds, options.seconds)))


class Kind:
    """A way to take a step: with or without statistics, with or without a driver."""

    def __init__(
        self, net: Any, options: argparse.Namespace, *, stats: Any = None, update_steps: int = 0
    ) -> None:
        """Begin a stream of its own."""
        self.net, self.stats = net, stats
        self.loader = loader_of(options.tokens // LENGTH)
        self.driver = driver_of(self.loader, update_steps) if update_steps else None
        self.batches: Iterator[Any] = iter(self.loader)
        self.steps = 0

    def step(self) -> float:
        """Take a step and return its CPU seconds."""
        before = time.process_time()
        batch = next(self.batches)
        tokens, domain = batch["input_ids"], batch["domain"]
        self.steps += 1
        with self.counting(domain, batch["position"]):
            logits = self.net.call(tokens[:, :-1]).logits
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), tokens[:, 1:], reduction="none"
        )
        losses.mean().backward()
        self.net.optimizer.step()
        self.net.optimizer.zero_grad()
        if self.driver is not None:
            self.driver.record(losses, domain)
            self.driver.step(learning_rate=1e-4)
        if self.stats is not None and self.steps % EVERY == 0:
            self.stats.reduce()
            self.stats.window()
        return time.process_time() - before

    def counting(self, domain: torch.Tensor, position: int) -> Any:
        """Return the context of the forward pass, as pretraining opens it."""
        if self.stats is None:
            return nullcontext()
        return self.stats.domains(domain[:, None].expand(-1, LENGTH), position=position)


class Net:
    """A model, its optimiser, and what calls it."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        config = MixtralConfig(
            vocab_size=VOCABULARY,
            hidden_size=options.width,
            intermediate_size=options.width,
            num_hidden_layers=options.layers,
            num_attention_heads=max(options.width // 64, 1),
            num_key_value_heads=max(options.width // 64, 1),
            num_local_experts=EXPERTS,
            num_experts_per_tok=TOP_K,
            sliding_window=None,
            use_cache=False,
            experts_implementation="grouped_mm",
        )
        self.model = MixtralForCausalLM(config).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.call: Callable[..., Any] = torch.compile(self.model) if options.compile else self.model


def make_kinds(options: argparse.Namespace) -> dict[str, Kind]:
    """Return the kinds of steps, and warm them up."""
    plain, counted = Net(options), Net(options)
    names = [f"domain{d}" for d in range(DOMAINS)]
    stats = RouterStats.attach(counted.model, names)
    kinds = {
        "without": Kind(plain, options),
        "control": Kind(counted, options),
        "RouterStats": Kind(counted, options, stats=stats),
        "driver, a new mixture every 10 steps": Kind(plain, options, update_steps=EVERY),
        "driver, a new mixture every step": Kind(plain, options, update_steps=1),
    }
    for kind in kinds.values():
        for _ in range(2 * EVERY):
            kind.step()
    return kinds


def loader_of(batch: int) -> MixtureLoader:
    """Return a loader of random tokens."""
    random = np.random.default_rng(0)
    rows = {
        f"domain{d}": [
            {"input_ids": random.integers(0, VOCABULARY, LENGTH + 1)} for _ in range(256)
        ]
        for d in range(DOMAINS)
    }
    dataset = MixtureDataset(rows)
    order = MixtureSampler(dataset.sizes, [1 / DOMAINS] * DOMAINS, batch_size=batch)
    return MixtureLoader(dataset, order)


def driver_of(loader: MixtureLoader, update_steps: int) -> Driver:
    """Return a driver that has begun, with an estimator of the library."""
    estimator = make_estimator("odm", {"warmup_steps": 1, "update_steps": update_steps})
    run = DriverOptions(steps=STEPS, tokens_per_sample=LENGTH, observe_every=EVERY, spike=None)
    driver = Driver(estimator, loader, run)
    driver.start()
    return driver


def take_turns(kinds: dict[str, Kind], seconds: float) -> dict[str, np.ndarray]:
    """Return the CPU seconds of each kind's steps, round by round."""
    random, end = np.random.default_rng(0), time.monotonic() + seconds
    times: dict[str, list[float]] = {name: [] for name in kinds}
    while time.monotonic() < end:
        for name in random.permutation(list(kinds)):
            times[name].append(kinds[name].step())
    return {name: np.array(values) for name, values in times.items()}


def added(with_: np.ndarray, without: np.ndarray) -> tuple[float, float, float]:
    """Return the median of what is added, and an interval, in seconds."""
    more = with_ - without
    drawn = np.random.default_rng(0).integers(0, len(more), (1000, len(more)))
    low, high = np.quantile(np.median(more[drawn], axis=1), (0.025, 0.975))
    return float(np.median(more)), float(low), float(high)


def table(options: argparse.Namespace, kinds: dict[str, Kind], times: dict[str, np.ndarray]) -> str:
    """Return the results as Markdown."""
    step = float(np.median(times["without"]))
    parameters = sum(p.numel() for p in kinds["without"].net.model.parameters())
    about = (
        f"{machine()}; Mixtral of {parameters / 1e6:.1f}M parameters, {options.layers} layers of"
        f" {EXPERTS} experts, {TOP_K} of a token, {'compiled, ' if options.compile else ''}"
        f"{options.tokens} tokens a step, {DOMAINS} domains, {len(times['without'])} rounds."
    )
    lines = [
        about,
        "",
        "| kind of step | CPU, median | added | of a step | 95% interval |",
        "|---|---|---|---|---|",
    ]
    for name, values in times.items():
        base = "control" if name == "RouterStats" else "without"
        more = added(values, times[base])
        share, low, high = (100 * part / step for part in more)
        lines.append(
            f"| {name} | {1e3 * np.median(values):.2f} ms | {1e6 * more[0]:.0f} us |"
            f" {share:.2f}% | {low:.2f} to {high:.2f}% |"
        )
    return "\n".join(lines)


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


if __name__ == "__main__":
    main()
