"""Everything that a GPU has to show, in one command, as a table.

    make gpu                                        # on the GPU, an hour
    python experiments/benchmarks/gpu.py --quick    # the same on a CPU at small sizes, minutes

The quickstart from text to a decision; stacked proxies against one after another at several widths
(bench_proxies); the sampler feeding the steps of a Llama of 1B weights, and how long a step waits
for its batch; `mixopt pretrain` of a model with experts. Rates of training are beside the card's
own bf16 product. The table goes to --out, with the card's name; each part runs in a process of its
own, and one that fails is a row with its error.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VOCABULARY = 8192
# Layers, width, heads, feed-forward, sequence length, sequences of a step; 1B weights and a test's.
LLAMA_1B, LLAMA_TINY = (16, 2048, 32, 8192, 2048, 8), (2, 64, 2, 128, 64, 4)
Line = tuple[str, str]


def main() -> None:
    """Run the parts and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--out", type=Path, default=HERE / "results_gpu.md")
    parser.add_argument("--part", choices=list(PARTS), help="one part, printed as JSON")
    given = parser.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part](given.quick)))
        return
    lines: list[Line] = []
    for part in PARTS:
        start = time.perf_counter()
        lines += _apart(part, given.quick)
        print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    rows = "\n".join(f"| {what} | {figure} |" for what, figure in lines)
    command = "make gpu" + (" (--quick: small sizes on a CPU)" if given.quick else "")
    given.out.write_text(
        f"# On {_card(given.quick)}\n\n`{command}`\n\n|  |  |\n|---|---|\n{rows}\n"
    )
    print(given.out.read_text())


def _apart(part: str, quick: bool) -> list[Line]:
    """Run a part in a process of its own."""
    words = [sys.executable, __file__, "--part", part, *(["--quick"] if quick else [])]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no output"])[-1]
        return [(part, f"failed: {last[:200]}")]
    return [(what, figure) for what, figure in json.loads(ended.stdout.strip().splitlines()[-1])]


def _mixopt(*words: str) -> float:
    """Run a command of mixopt; return its seconds."""
    start, command = time.perf_counter(), (sys.executable, "-m", "mixopt", *words)
    if subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr).returncode:
        raise SystemExit(1)  # its own message is the last line
    return time.perf_counter() - start


def quickstart(quick: bool) -> list[Line]:
    """Time the quickstart; at small sizes up to its design."""
    with tempfile.TemporaryDirectory() as folder:
        small = ("--set", "corpus.max_bytes=200000", "--set", "propose.target_tokens=1000000")
        until = ["--until", "design", *small] if quick else []
        seconds = _mixopt("run", "experiments/quickstart.yaml", "--out", f"{folder}/run", *until)
        what = "quickstart, text to design" if quick else "quickstart, text to decision"
        return [(what, f"{seconds:.0f} s")]


def proxies(quick: bool) -> list[Line]:
    """Compare stacked proxies with one after another."""
    device = ["--device", "cpu", "--quick", "--rows", "0"] if quick else ["--device", "cuda"]
    words = [sys.executable, str(HERE / "bench_proxies.py"), "--json", *device]
    rows = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    lines = []
    for row in rows:
        peak = (
            f"{row['share_of_peak']:.0%} of a bf16 product's {row['peak_gflops'] / 1e3:.1f} TFLOP/s"
        )
        figure = f"{row['ratio_wall']:.1f} times transformers one after another, {peak}"
        lines.append((f"proxies: {row['name']}, {row['members']} at once", figure))
    return lines


def feeding(quick: bool) -> list[Line]:
    """Train a Llama on the sampler's batches; measure how long steps wait for them."""
    import torch
    from bench_proxies import bf16_peak, random_corpus, wait_for
    from transformers import LlamaConfig, LlamaForCausalLM

    from mixopt.loading import MixtureDataset, MixtureLoader
    from mixopt.mixture import Mixture
    from mixopt.sampling import MixtureSampler

    device = torch.device("cpu" if quick else "cuda")
    layers, width, heads, ff, length, batch = LLAMA_TINY if quick else LLAMA_1B
    steps, first = (12, 2) if quick else (60, 10)
    shape = {"hidden_size": width, "intermediate_size": ff, "num_hidden_layers": layers}
    config = LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=heads, **shape)
    with tempfile.TemporaryDirectory() as folder:
        domains = {d.name: d.train for d in random_corpus(Path(folder), VOCABULARY).domains}
        dataset = MixtureDataset(domains, length=length)
        sampler = MixtureSampler(dataset.sizes, Mixture.uniform(tuple(domains)), batch_size=batch)
        model = LlamaForCausalLM(config).to(device, torch.bfloat16)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        waits, whole = [], []
        batches = iter(MixtureLoader(dataset, sampler))
        for _ in range(steps):
            start = time.perf_counter()
            rows = next(batches)
            waited = time.perf_counter() - start
            ids = torch.as_tensor(np.asarray(rows["input_ids"]), dtype=torch.long).to(device)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            wait_for(device)
            waits.append(waited)
            whole.append(time.perf_counter() - start)
        rate = batch * length * (steps - first) / sum(whole[first:])
        weights = sum(part.numel() for part in model.parameters())
        share = 6 * weights * rate / bf16_peak(device)
        shape = f"{weights / 1e6:,.1f}M weights, {batch} x {length} tokens"
        wait, step = (1e3 * float(np.median(part[first:])) for part in (waits, whole))
        longest = 1e3 * max(waits[first:])
        figure = f"{rate:,.0f} tokens/s, {share:.0%} of a bf16 product's rate"
        return [
            (f"sampler feeding a Llama: {shape}", figure),
            ("a step waits for its batch", f"{wait:.2f} ms of {step:.1f} (at most {longest:.2f})"),
        ]


def experts(quick: bool) -> list[Line]:
    """Time `mixopt pretrain` of a model with experts, counted by domain."""
    steps = 6 if quick else 400
    with tempfile.TemporaryDirectory() as folder:
        seconds = _mixopt(
            *("pretrain", "examples/pretrain_tiny.yaml", "--out", f"{folder}/run"),
            *("--set", "model.options={size: moe-tiny}", "--set", f"training.steps={steps}"),
            *("--set", "tracking.enabled=false"),
        )
        return [(f"pretrain with experts, {steps} steps and the preparation", f"{seconds:.0f} s")]


def _card(quick: bool) -> str:
    """Return the name of the GPU, or of the machine's kind."""
    if quick:
        return f"a CPU ({platform.machine()})"
    import torch

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


PARTS = {part.__name__: part for part in (quickstart, proxies, feeding, experts)}


if __name__ == "__main__":
    main()
