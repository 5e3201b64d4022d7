"""Measure what a long record of many experts takes: to write it, to read it all, to draw it.

    python experiments/benchmarks/bench_expert_record.py [--layers 61] [--experts 256]

The record is one that a pretraining would write: windows of counts of random loads, with a change
of weights in the middle. Each row is a process of its own with one thread; memory is the most that
all of it held. "Nothing" is a process that has imported what the others do.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mixopt import experts
from mixopt.online import MIXTURE_LOG
from mixopt.reporting import draw_step
from mixopt.routing import EXPERTS, Assignments, CountedWindow, ExpertRecord, nothing

STEPS = 10  # of a window
TOKENS = 400  # of each domain for each expert, in a window
TOP_K = 8


def main() -> None:
    """Write a record, read it and draw it in processes of their own, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--layers", type=int, default=61)
    parser.add_argument("--experts", type=int, default=256)
    parser.add_argument("--domains", type=int, default=20)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--part", choices=PARTS, help="one row, of the record in --run")
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    if options.part:
        print(*measured(lambda: PARTS[options.part](options)))
        return
    print(
        f"{options.windows} windows of {options.layers} layers x {options.experts} experts x"
        f" {options.domains} domains, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| | CPU, s | memory, MB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in PARTS:
            seconds, memory = in_a_process(name, Path(folder))
            print(f"| {name} | {seconds:.1f} | {memory:.0f} |", flush=True)
        files = list(Path(folder, EXPERTS).rglob("*.parquet"))
        size = sum(file.stat().st_size for file in files) / options.windows
    print(f"\nA window has {size / 1e6:.1f} MB on disk.")


def in_a_process(name: str, run: Path) -> tuple[float, float]:
    """Measure a part in a process of its own."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    ended = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--part", name, "--run", str(run)],
        env={**os.environ, **single},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, memory = ended.stdout.split()[-2:]
    return float(seconds), float(memory)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU seconds of some work, and the most MB that the process held."""
    begun = time.process_time()
    work()
    seconds = time.process_time() - begun
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(options: argparse.Namespace) -> None:
    """Write a record, and a change of weights in its middle."""
    from mixopt.online import MixtureLog  # imports torch, which the others do without

    record = ExpertRecord(options.run / EXPERTS)
    for number in range(options.windows):
        window = random_assignments(options, seed=number)
        record.write_window(CountedWindow(number * STEPS, (number + 1) * STEPS, window))
    log = MixtureLog(options.run / MIXTURE_LOG)
    for step, share_D in (
        (1, np.ones(options.domains)),
        (1 + STEPS * (options.windows // 2), np.arange(1.0, options.domains + 1)),
    ):
        weights = {f"domain{d}": float(w) for d, w in enumerate(share_D / share_D.sum())}
        log.write(step - 1, step, weights, "a benchmark", shadow=False)


def random_assignments(options: argparse.Namespace, seed: int) -> Assignments:
    """Return what a window may have counted: domains that differ, loads that drift a little."""
    names = tuple(f"domain{d}" for d in range(options.domains))
    routers = {str(number): (options.experts, TOP_K) for number in range(options.layers)}
    fixed, drift = np.random.default_rng(0), np.random.default_rng(seed)
    layers = []
    for layer in nothing(names, routers).layers:
        shape = options.domains, options.experts
        share_DE = fixed.gamma(8, size=shape) * drift.gamma(200, size=shape)
        share_DE /= share_DE.sum(1, keepdims=True)
        half_DE = share_DE * TOKENS * options.experts / 2
        counts_HDE = drift.poisson(half_DE, size=(2, *shape))
        counts_HDE[0, :, 0] += -counts_HDE.sum((0, 2)) % TOP_K
        tokens_D = counts_HDE.sum((0, 2)) / TOP_K
        layers.append(
            replace(
                layer,
                counts_HDE=counts_HDE,
                probability_DE=share_DE * tokens_D[:, None],
                entropy_D=tokens_D,
                squared_logsumexp_D=tokens_D,
                chosen_D=tokens_D / 2,
            )
        )
    return Assignments(names, tuple(layers))


PARTS: dict[str, Callable[[argparse.Namespace], object]] = {
    "nothing": lambda options: options,
    "to draw lots and write them": write,
    "the page of text": lambda options: str(experts(options.run)),
    "the figures of a step": lambda options: draw_step(options.run, 10**9),
}

if __name__ == "__main__":
    main()
