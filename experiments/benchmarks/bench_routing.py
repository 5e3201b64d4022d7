"""Measure what RouterStats and the online driver take of a training step, and write the results.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_routing.py [--tokens 512] [--compile]

A step is a Mixtral of transformers with grouped products: batch from a `MixtureLoader`, forward,
backward, AdamW. Steps of all kinds take turns, one of each in a round, in an order that is drawn
anew. All times are CPU time of one thread, in which busy neighbours show less than in wall time.

Two figures of each kind, with the interval that holds 95% of 1,000 medians of resampled rounds:

- `calls`: the time inside what was added, measured in the steps themselves: hooks of routers, the
  opening and closing of a batch, `reduce`; or `record` and `step` of the driver. A step's calls are
  over the median step without; what is done every few steps is divided among them.
- `with less without`: the step less that without in the same round, which has what the calls do to
  the rest of the step, and its noise. `control` is a step without, of a second model of the same
  weights: what it differs by is noise. RouterStats is on that second model, and is compared with
  `control`, whose hooks are idle.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
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
from mixopt.routing import CountedWindow, ExpertRecord, RouterStats, RouterTap
from mixopt.sampling import MixtureSampler

DOMAINS = 8
VOCABULARY = 2048
LENGTH = 128
EXPERTS, TOP_K = 16, 4
STEPS = 1_000_000  # of the run that an estimator is told of
LARGE = 61, 256, 8, 20  # layers, experts, of a token, domains
HEAD = """# What RouterStats and the driver take of a training step

`OMP_NUM_THREADS=1 python experiments/benchmarks/bench_routing.py --tokens {options.tokens}`, CPU
time; what is measured how is in the script.
"""
EVERY = 10  # steps between sums: those of a driver, and lines of metrics


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--tokens", type=int, default=512, help="of a step")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=120, help="how long to take turns")
    parser.add_argument("--results", type=Path, help="the file to write as well")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kinds = make_kinds(options)
    shown = "\n".join(
        [HEAD.format(options=options), table(options, kinds, take_turns(kinds, options)), memory()]
    )
    print(shown)
    if options.results is not None:
        options.results.write_text(shown)


class Clock:
    """CPU time of this thread inside calls that are counted."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call that adds its time."""

        def timed(*values: Any, **named: Any) -> Any:
            before = time.thread_time()
            try:
                return call(*values, **named)
            finally:
                self.seconds += time.thread_time() - before

        return timed


class Kind:
    """A way to take a step: with or without statistics, with or without a driver."""

    def __init__(
        self, net: Any, options: argparse.Namespace, *, stats: Any = None, update_steps: int = 0
    ) -> None:
        """Begin a stream of its own."""
        self.net, self.stats, self.clock = net, stats, Clock()
        self.loader = loader_of(options.tokens // LENGTH)
        self.driver = driver_of(self.loader, update_steps) if update_steps else None
        self.batches: Iterator[Any] = iter(self.loader)
        self.steps = 0
        if stats is not None and not options.compile:
            for router in stats.routers:
                hooks = router.module._forward_hooks
                for key, hook in hooks.items():
                    hooks[key] = self.clock.timed(hook)

    def step(self) -> tuple[float, float]:
        """Take a step and return its CPU seconds, and those inside of calls."""
        self.clock.seconds = 0.0
        before = time.process_time()
        batch = next(self.batches)
        tokens, domain = batch["input_ids"], batch["domain"]
        self.steps += 1
        opened = self.counting(domain, batch["position"])
        self.clock.timed(opened.__enter__)()
        logits = self.net.call(tokens[:, :-1]).logits
        self.clock.timed(opened.__exit__)(None, None, None)
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), tokens[:, 1:], reduction="none"
        )
        losses.mean().backward()
        self.net.optimizer.step()
        self.net.optimizer.zero_grad()
        if self.driver is not None:
            self.clock.timed(self.driver.record)(losses, domain)
            self.clock.timed(self.driver.step)(learning_rate=1e-4)
        if self.stats is not None and self.steps % EVERY == 0:
            self.clock.timed(self.stats.reduce)()
            self.clock.timed(self.stats.window)()
        return time.process_time() - before, self.clock.seconds

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
    names = [f"domain{d}" for d in range(DOMAINS)]
    plain, counted, only_counted = Net(options), Net(options), Net(options)
    stats = RouterStats.attach(counted.model, names)
    counts = RouterStats.attach(only_counted.model, names, probabilities=False)
    kinds = {
        "without": Kind(plain, options),
        "control": Kind(counted, options),
        "RouterStats": Kind(counted, options, stats=stats),
        "RouterStats, counts alone": Kind(only_counted, options, stats=counts),
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


def take_turns(kinds: dict[str, Kind], options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return the CPU seconds of each kind's steps and of calls in them, (rounds, 2)."""
    random, end = np.random.default_rng(0), time.monotonic() + options.seconds
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    while time.monotonic() < end:
        for name in random.permutation(list(kinds)):
            times[name].append(kinds[name].step())
    return {name: np.array(values) for name, values in times.items()}


def typical(values: np.ndarray) -> tuple[float, float, float]:
    """Return the median, and the interval of medians of resampled values."""
    drawn = np.random.default_rng(0).integers(0, len(values), (1000, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), (0.025, 0.975))
    return float(np.median(values)), float(low), float(high)


def calls_of_steps(seconds: np.ndarray) -> np.ndarray:
    """Return the mean of each `EVERY` steps, of which one has what is done every so many."""
    whole = len(seconds) // EVERY * EVERY
    return np.asarray(seconds[:whole].reshape(-1, EVERY).mean(1))


def table(options: argparse.Namespace, kinds: dict[str, Kind], times: dict[str, np.ndarray]) -> str:
    """Return the results as Markdown."""
    step = float(np.median(times["without"][:, 0]))
    parameters = sum(p.numel() for p in kinds["without"].net.model.parameters())
    about = (
        f"{machine()}; Mixtral of {parameters / 1e6:.1f}M parameters, {options.layers} layers of"
        f" {EXPERTS} experts, {TOP_K} of a token, {'compiled, ' if options.compile else ''}"
        f"{options.tokens} tokens a step, {DOMAINS} domains, {len(times['without'])} rounds; a step"
        f" without takes {1e3 * step:.1f} ms."
    )
    lines = [
        about,
        "",
        "| kind of step | calls | of a step | 95% interval | with less without | 95% interval |",
        "|---|---|---|---|---|---|",
    ]
    for name, values in times.items():
        base = "control" if name == "RouterStats" else "without"
        calls, share = "", ""
        if values[:, 1].max() > 1e-4:
            inside = typical(calls_of_steps(values[:, 1]))
            calls, share = f"{1e6 * inside[0]:.0f} us", interval(inside, step)
        more = typical(values[:, 0] - times[base][:, 0])
        lines.append(f"| {name} | {calls} | {share or '|'} | {interval(more, step)} |")
    return "\n".join([*lines, ""])


def interval(values: tuple[float, float, float], step: float) -> str:
    """Return a median and its interval as shares of a step, in two cells."""
    middle, low, high = (100 * value / step for value in values)
    return f"{middle:.2f}% | {low:.2f} to {high:.2f}%"


def memory() -> str:
    """Return what is kept of a large model, as Markdown; none of it grows with batches."""
    layers, experts, top_k, domains = LARGE
    model = torch.nn.ModuleList([RouterTap(experts=experts, top_k=top_k) for _ in range(layers)])
    stats = RouterStats.attach(model.train(), [f"domain{d}" for d in range(domains)])
    logits = torch.randn(LENGTH * domains, experts)
    ids = logits.topk(top_k).indices
    with stats.domains(torch.arange(domains), torch.ones(domains, LENGTH)):
        for tap in model:
            tap(ids, logits)
    counters = stats._counting._counters
    tensors = [t for c in counters for t in vars(c).values() if isinstance(t, torch.Tensor)]
    on_device = sum(t.numel() * t.element_size() for t in tensors)
    window = stats.window()
    on_host = sum(array.nbytes for layer in window.layers for array in layer.arrays().values())
    with tempfile.TemporaryDirectory() as folder:
        ExpertRecord(Path(folder)).write_window(CountedWindow(0, 1, window))
        on_disk = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    rows = [
        ("accumulators, on the device", on_device),
        ("a total, or a window, on the host (there is one of each)", on_host),
        ("parts of the record of one window, on disk", on_disk),
    ]
    return "\n".join(
        [
            f"{layers} layers of {experts} experts, {top_k} of a token, {domains} domains:",
            "",
            "| what is kept | MB |",
            "|---|---|",
            *(f"| {name} | {size / 1e6:.1f} |" for name, size in rows),
            "",
        ]
    )


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
