"""Where the time of a large vocabulary's step goes, and how near the loss is to its products.

    OMP_NUM_THREADS=1 uv run python experiments/benchmarks/bench_loss.py [--quick]

RegMix's shape with its vocabulary of 50,432, one member, 512 tokens a step: CPU time of one thread
of the whole step and of its loss. Three of the loss's products cannot be left out; the limit is
their operations by the rate of a bf16 product of 2048 x 2048 matrices, measured in the same rounds.
The loss is also measured without compilation, and with smaller and larger tiles of the vocabulary.
All take turns; medians are printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from bench_proxies import CPU, ROWS, bf16_peak, random_corpus, stacked_step
from mixopt_proxies.decoder import TILE_LOGITS, HeadLoss, memory_kept, tile_width

ROW = ROWS[2]
TILES = tuple(1 << power for power in (18, 19, 20, 21, 22))


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    rounds = 3 if parser.parse_args().quick else 15
    torch.set_num_threads(1)
    with memory_kept(CPU), tempfile.TemporaryDirectory() as folder:
        corpus = random_corpus(Path(folder), ROW.vocab_size)
        sides = {"step": stacked_step(ROW, corpus, 1, CPU)}
        sides |= losses()
        times: dict[str, list[float]] = {name: [] for name in sides}
        peaks = []
        for _ in range(rounds):
            peaks.append(bf16_peak())
            for name, side in sides.items():
                times[name].append(cpu_seconds(side))
    print(table({name: median(found) for name, found in times.items()}, median(peaks)))


def losses() -> dict[str, Callable[[], object]]:
    """Return the loss on random hidden states, as it is used, and in other ways."""
    size, vocab_size = ROW.size, ROW.vocab_size
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, size.step_tokens, size.width, generator=generator).bfloat16()
    head = torch.randn(1, vocab_size, size.width, generator=generator).bfloat16() / 16
    targets = torch.randint(vocab_size, (1, size.step_tokens), generator=generator)
    compiled, eager, used = HeadLoss(compiled=True), HeadLoss(compiled=False), TILE_LOGITS["cpu"]

    def tiled(logits: int) -> Callable[[], object]:
        def run() -> None:
            TILE_LOGITS["cpu"] = logits
            compiled.training(hidden, head, targets)
            TILE_LOGITS["cpu"] = used

        return run

    found: dict[str, Callable[[], object]] = {
        "loss": lambda: compiled.training(hidden, head, targets),
        "loss, not compiled": lambda: eager.training(hidden, head, targets),
        "loss, held out": lambda: compiled.losses(hidden, head, targets),
    }
    for logits in TILES:
        width = max(256, logits // size.step_tokens)
        found[f"loss, tiles of {width} tokens"] = tiled(logits)
    return found


def cpu_seconds(side: Callable[[], object]) -> float:
    """Return the CPU time of one run, after one that is not measured."""
    side()
    start = time.process_time()
    side()
    return time.process_time() - start


def table(times: dict[str, float], peak: float) -> str:
    """Return the times in milliseconds as a Markdown table."""
    size, vocab_size = ROW.size, ROW.vocab_size
    limit = 6 * size.step_tokens * size.width * vocab_size / peak
    width = tile_width(size.step_tokens, vocab_size, CPU)
    rows = ["| what | CPU time, ms | of the step |", "| --- | --- | --- |"]
    for name, seconds in [*times.items(), ("limit: three products at peak", limit)]:
        rows.append(f"| {name} | {seconds * 1e3:.1f} | {seconds / times['step']:.0%} |")
    return "\n".join([*rows, "", f"peak: {peak / 1e9:.0f} GFLOP/s; tiles in use: {width} tokens"])


if __name__ == "__main__":
    main()
