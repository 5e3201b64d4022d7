"""What the driver takes of a training step.

    python experiments/benchmarks/bench_driver.py [--device cuda --width 1024 --layers 12 ...]

A small decoder trains on random tokens, with an estimator that changes the mixture every
`--every` steps. Steps with the driver and steps without take turns, a block of each at a time,
and a block ends with the device's work. Printed are the time inside the driver's calls as a share
of the steps that have them, and the ratio of the two kinds of steps, by medians over the blocks:
the second is what a run pays, and holds the noise of the machine.

The estimator's own time is not counted as the driver's; how long it takes to decide is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from mixopt.loading import MixtureDataset, MixtureLoader
from mixopt.online import Driver, DriverOptions, Observation, Plan, Setting
from mixopt.sampling import MixtureSampler

ROWS = 4000


class Turning:
    """Another mixture every few steps."""

    def __init__(self, every: int) -> None:
        self.needs = frozenset({"training_loss"})
        self._every, self._count = every, 0

    def start(self, setting: Setting) -> None:
        """Begin a run."""
        self._domains = len(setting.domains)

    def plan(self) -> Plan:
        """Return the next mixture."""
        self._count += 1
        heat = np.sin(np.arange(self._domains) + self._count)
        return Plan(np.exp(heat) / np.exp(heat).sum(), self._every, f"turn {self._count}")

    def observe(self, observation: Observation) -> None:
        """Take nothing in."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Begin anew."""


class Decoder(nn.Module):
    """A causal transformer of torch's own layers."""

    def __init__(self, vocabulary: int, width: int, layers: int, length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(
            width, max(width // 64, 1), 4 * width, 0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, vocabulary)
        mask = nn.Transformer.generate_square_subsequent_mask(length - 1)
        self.register_buffer("mask", mask)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the loss of each token after the first, shape (B, T - 1)."""
        hidden = self.layers(self.embed(tokens[:, :-1]), mask=self.mask, is_causal=True)
        logits = self.out(hidden).transpose(1, 2)
        return nn.functional.cross_entropy(logits.float(), tokens[:, 1:], reduction="none")


class Bench:
    """One model, with and without a driver."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options = options
        self.device = torch.device(options.device)
        random = np.random.default_rng(0)
        rows = {
            f"domain {d}": [
                {"input_ids": random.integers(0, options.vocabulary, options.length)}
                for _ in range(max(ROWS // options.domains, options.batch))
            ]
            for d in range(options.domains)
        }
        dataset = MixtureDataset(rows)
        order = MixtureSampler(
            dataset.sizes, [1 / options.domains] * options.domains, batch_size=options.batch
        )
        self.loader = MixtureLoader(dataset, order)
        sizes = (options.vocabulary, options.width, options.layers, options.length)
        self.model = Decoder(*sizes).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4)
        self.inside = 0.0

    def steps(self, batches: Iterator[Any], count: int, driver: Driver | None) -> float:
        """Return the seconds of a step."""
        began = time.perf_counter()
        for _ in range(count):
            batch = next(batches)
            with torch.autocast(self.device.type, torch.bfloat16, self.device.type == "cuda"):
                losses = self.model(batch["input_ids"].to(self.device, non_blocking=True))
            losses.mean().backward()
            before = time.perf_counter()
            if driver is not None:
                driver.record(losses, batch["domain"])
            between = time.perf_counter()
            self.optimizer.step()
            self.optimizer.zero_grad()
            after = time.perf_counter()
            if driver is not None:
                driver.step(learning_rate=1e-4)
                self.inside += between - before + time.perf_counter() - after
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take turns; the driver sees a stream of its own steps alone."""
    bench = Bench(options)
    batches = iter(bench.loader)
    without, with_, inside = [], [], []
    bench.steps(batches, options.block, None)
    for block in range(options.blocks + 1):
        plain = bench.steps(batches, options.block, None)
        run = DriverOptions(
            steps=options.block + 1,
            tokens_per_sample=options.length,
            observe_every=options.every,
        )
        driver = Driver(Turning(options.every), bench.loader, run)
        driver.start()
        bench.inside = 0.0
        driven = bench.steps(batches, options.block, driver)
        if block:  # the first warms up
            without.append(plain)
            with_.append(driven)
            inside.append(bench.inside / options.block / driven)
    return {
        "step_ms": round(1e3 * statistics.median(without), 3),
        "inside_percent": round(100 * statistics.median(inside), 3),
        "ratio": round(statistics.median(with_) / statistics.median(without), 4),
        "parameters": sum(p.numel() for p in bench.model.parameters()),
        "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu",
        **vars(options),
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name, default in (
        ("batch", 8),
        ("length", 128),
        ("width", 128),
        ("layers", 2),
        ("vocabulary", 2048),
        ("domains", 8),
        ("every", 10),
        ("block", 40),
        ("blocks", 9),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
