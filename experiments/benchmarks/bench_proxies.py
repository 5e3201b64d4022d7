"""The stacked trainer against Hugging Face models of the same shape trained one after another.

    uv run python experiments/benchmarks/bench_proxies.py [--quick] [--json] [--device cuda]

Both sides train models of one shape, on one thread or on a GPU. Theirs: `LlamaForCausalLM`, with
experts `MixtralForCausalLM` with its grouped products and auxiliary loss, in fp32, eager, fused
AdamW, gradient clipping, on batches that lie ready. Ours: `StackTrainer` as a sweep runs it,
with its batches read from token shards, clipping, schedule and the number of members that the
trainer chooses; the second control is one member alone. The sides take turns in rounds; a ratio is
the median over rounds of the ratio within a round, in CPU time and in wall time (busy
neighbours disturb wall time more). Compilation is not in the rates; its time is a column.

The peak is that of a bf16 product of 2048 x 2048 matrices (8192 on a GPU), measured in the same
rounds; the share counts 6 operations a weight and token, and half of each attention square.

On a GPU the rows are others, rounds wait for the device at their ends, and wall time is the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mixopt_proxies.decoder import (
    DecoderSize,
    Passes,
    StackTrainer,
    TrialBatches,
    has_compiler,
    make_size,
    members_by_rule,
    memory_kept,
    resolve_device,
    resolve_precision,
)
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from mixopt.corpus import Corpus, Domain, TokenShards, TokenWriter
from mixopt.sweeps import Training
from mixopt.trials import Trial

CPU = torch.device("cpu")
# Before steps are timed: ours are recorded as a CUDA graph after the first ones.
FIRST_STEPS = 6
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Row:
    """One shape to compare, and its target ratio or share of peak."""

    name: str
    size: DecoderSize
    vocab_size: int
    ratio: float | None = None
    share: float | None = None


SHORT = {"sequence_length": 64, "batch": 2}
REGMIX = {"sequence_length": 256, "batch": 2}
WIDE = {"layers": 4, "width": 128, "heads": 2, "ff": 352, "sequence_length": 256, "batch": 4}

ROWS = (
    Row("tiny, the quickstart's", make_size("tiny"), 256, ratio=4.0),
    Row("tiny, 128 tokens a step", make_size("tiny", **SHORT), 256, ratio=4.0),
    Row("RegMix 1M, vocabulary 50432", make_size("1m", **REGMIX), 50_432, ratio=1.4),
    Row("width 128", make_size("tiny", **WIDE), 256, share=0.4),
    Row("moe-tiny", make_size("moe-tiny"), 256, ratio=2.0),
    Row("moe-tiny, 128 tokens a step", make_size("moe-tiny", **SHORT), 256, ratio=4.0),
)


LONG = {"sequence_length": 1024}
WIDTHS = {
    width: {"layers": 4, "width": width, "heads": width // 64, "ff": 2 * width} | LONG
    for width in (128, 256, 512)
}
GPU_ROWS = (
    Row("1m, 4k tokens, vocabulary 4096", make_size("1m", batch=2), 4096, ratio=6.0),
    Row("1m, 2k tokens, vocabulary 2048", make_size("1m", batch=1), 2048, ratio=12.0),
    Row("1m, 16k tokens, vocabulary 50432", make_size("1m"), 50_432, ratio=3.0),
    *(
        Row(f"width {width}, {batch}k tokens", make_size("1m", batch=batch, **sizes), 4096, 1.0)
        for width, sizes in WIDTHS.items()
        for batch in (2, 4)
    ),
)


@dataclass(frozen=True)
class Rate:
    """Tokens per second of one side in one round, in CPU time and in wall time."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Result:
    """The result of a row: tokens per CPU second, and medians of ratios within a round."""

    name: str
    members: int
    compile_seconds: float
    theirs: float
    alone: float
    ours: float
    alone_ratio: float
    ratio: float
    ratio_wall: float
    spread: tuple[float, float]
    share_of_peak: float
    peak_gflops: float
    target: str
    met: bool


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few short rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rows", type=int, nargs="*", help="which rows, from 0; all if absent")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to train")
    arguments = parser.parse_args()
    rounds, seconds = (3, 0.3) if arguments.quick else (7, 1.0)
    device = resolve_device(arguments.device)
    known = ROWS if device == CPU else GPU_ROWS
    rows = known if arguments.rows is None else [known[i] for i in arguments.rows]
    torch.set_num_threads(1)
    results = [measure(row, rounds, seconds, device) for row in rows]
    print(json.dumps([asdict(r) for r in results]) if arguments.json else table(results))


def measure(row: Row, rounds: int, seconds: float, device: torch.device) -> Result:
    """Time the sides of one row in turns."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = random_corpus(Path(folder), row.vocab_size)
        members = members_by_rule(row.size, row.vocab_size, device)
        start = time.perf_counter()
        ours = stacked_step(row, corpus, members, device)
        compile_seconds = time.perf_counter() - start
        alone = ours if members == 1 else stacked_step(row, corpus, 1, device)
        sides = {"theirs": transformers_step(row, device), "alone": alone, "ours": ours}
        rates: dict[str, list[Rate]] = {name: [] for name in sides}
        peaks = []
        for _ in range(rounds):
            peaks.append(bf16_peak(device))
            for name, step in sides.items():
                tokens = row.size.step_tokens * (members if name == "ours" else 1)
                with memory_kept(device) if name != "theirs" else nullcontext():
                    rates[name].append(timed(step, tokens, seconds, device))
    return summary(row, members, compile_seconds, rates, peaks)


def summary(
    row: Row, members: int, compile_seconds: float, rates: dict[str, list[Rate]], peaks: list[float]
) -> Result:
    """Return the medians over rounds."""

    def ratios(side: str, clock: str) -> list[float]:
        pairs = zip(rates[side], rates["theirs"], strict=True)
        return [getattr(own, clock) / getattr(their, clock) for own, their in pairs]

    token_flops = row.size.step_flops(row.vocab_size) / row.size.step_tokens
    shares = [r.cpu * token_flops / peak for r, peak in zip(rates["ours"], peaks, strict=True)]
    ratio, share = median(ratios("ours", "cpu")), median(shares)
    return Result(
        name=row.name,
        members=members,
        compile_seconds=compile_seconds,
        theirs=median([rate.cpu for rate in rates["theirs"]]),
        alone=median([rate.cpu for rate in rates["alone"]]),
        ours=median([rate.cpu for rate in rates["ours"]]),
        alone_ratio=median(ratios("alone", "cpu")),
        ratio=ratio,
        ratio_wall=median(ratios("ours", "wall")),
        spread=(min(ratios("ours", "cpu")), max(ratios("ours", "cpu"))),
        share_of_peak=share,
        peak_gflops=median(peaks) / 1e9,
        target=f"{row.ratio} times" if row.ratio else f"{row.share:.0%} of peak",
        met=ratio >= (row.ratio or 0) and share >= (row.share or 0),
    )


def timed(step: Callable[[], object], tokens: int, seconds: float, device: torch.device) -> Rate:
    """Take steps for some seconds and return the tokens per second.

    On a GPU both rates are in wall time, which includes the wait for the last step.
    """
    step()
    wait_for(device)
    cpu, wall, steps = time.process_time(), time.perf_counter(), 0
    clock = time.process_time if device == CPU else time.perf_counter
    start = clock()
    while steps < 2 or clock() - start < seconds:
        step()
        steps += 1
    wait_for(device)
    done, elapsed = steps * tokens, time.perf_counter() - wall
    used = time.process_time() - cpu if device == CPU else elapsed
    return Rate(done / used, done / elapsed)


def wait_for(device: torch.device) -> None:
    """Wait for the queued work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stacked_step(
    row: Row, corpus: Corpus, members: int, device: torch.device
) -> Callable[[], object]:
    """Return one step of our trainer as a sweep runs it: compiled, with data and clipping."""
    size, steps = row.size, 100_000
    trials = [Trial(f"t{k}", corpus.natural, seed=k) for k in range(members)]
    dtype, compiled = resolve_precision("auto", device), has_compiler(device)
    passes = Passes(size, row.vocab_size, device=device, dtype=dtype, compiled=compiled)
    trainer = StackTrainer(trials, passes, steps=steps)
    batches = TrialBatches(
        trials,
        corpus,
        Training(steps * size.step_tokens),
        batch=size.batch,
        length=size.sequence_length,
    )
    stream = trainer.stream(batches)

    def step() -> None:
        trainer.step(next(stream)[1])

    for _ in range(FIRST_STEPS if device.type == "cuda" else 1):
        step()
    wait_for(device)
    return step


def transformers_step(row: Row, device: torch.device) -> Callable[[], object]:
    """Return one step of a Hugging Face model of the same shape, fp32 and eager."""
    size, model = row.size, transformers_model(row).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.lr, fused=True)
    tokens = torch.randint(row.vocab_size, (8, size.batch, size.sequence_length), device=device)
    batches = itertools.cycle(tokens)

    def step() -> None:
        batch = next(batches)
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), size.clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def transformers_model(row: Row) -> torch.nn.Module:
    """Return a Llama of a row's shape, or a Mixtral where it has experts."""
    size = row.size
    shape = {
        "vocab_size": row.vocab_size,
        "hidden_size": size.width,
        "intermediate_size": size.expert_ff if size.experts else size.ff,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "max_position_embeddings": size.sequence_length,
        "tie_word_embeddings": size.tied,
        "use_cache": False,
    }
    if not size.experts:
        return LlamaForCausalLM(LlamaConfig(**shape))
    config = MixtralConfig(
        **shape,
        num_local_experts=size.experts,
        num_experts_per_tok=size.top_k,
        output_router_logits=True,
        sliding_window=None,
        experts_implementation="grouped_mm",
    )
    return MixtralForCausalLM(config).train()


def random_corpus(folder: Path, vocab_size: int, domains: int = 6) -> Corpus:
    """Write domains of random tokens: the time of a step does not depend on the text."""
    generator = np.random.default_rng(0)
    return Corpus(
        path=folder,
        domains=tuple(
            Domain(f"d{i}", *(shards(folder / f"d{i}" / s, generator, vocab_size) for s in SPLITS))
            for i in range(domains)
        ),
        targets=(),
        tokenizer="random",
        vocab_size=vocab_size,
        fingerprint="random",
        provenance={},
    )


def shards(path: Path, generator: np.random.Generator, vocab_size: int) -> TokenShards:
    """Write and open a million random tokens."""
    tokens = generator.integers(vocab_size, size=1_000_000).astype(np.uint16)
    with TokenWriter(path, dtype="uint16", tokenizer="random") as writer:
        writer.write(tokens, documents=1, bytes=len(tokens))
    return TokenShards.open(path)


def bf16_peak(device: torch.device = CPU) -> float:
    """Return the operations per second of a large bf16 product, the best of three; CPU time."""
    width = 2048 if device == CPU else 8192
    clock = time.process_time if device == CPU else time.perf_counter
    left = torch.randn(width, width, device=device).bfloat16()
    times = []
    for _ in range(3):
        wait_for(device)
        start = clock()
        left @ left
        wait_for(device)
        times.append(clock() - start)
    return 2 * width**3 / min(times)


def table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    names = ["shape", "theirs, one by one", "ours, K = 1", "ours", "K", "ratio, CPU time"]
    names += ["least to most", "ratio, wall", "ratio, K = 1", "share of bf16 peak"]
    names += ["peak, GFLOP/s", "first step", "target"]
    rows = [names, ["---"] * len(names), *(cells(result) for result in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cells(result: Result) -> list[str]:
    """Return one row of the table; rates are in tokens per CPU second."""
    return [
        result.name,
        f"{result.theirs:,.0f}",
        f"{result.alone:,.0f}",
        f"{result.ours:,.0f}",
        str(result.members),
        f"{result.ratio:.2f}",
        f"{result.spread[0]:.2f} to {result.spread[1]:.2f}",
        f"{result.ratio_wall:.2f}",
        f"{result.alone_ratio:.2f}",
        f"{result.share_of_peak:.0%}",
        f"{result.peak_gflops:.0f}",
        f"{result.compile_seconds:.0f} s",
        f"{result.target}: {'met' if result.met else 'missed'}",
    ]


if __name__ == "__main__":
    main()
