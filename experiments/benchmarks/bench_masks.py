"""What it costs that documents of a row do not see each other: steps with masks over steps without.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_masks.py [--rounds 15]

A step is a forward and a backward pass over rows whose documents are 100 tokens long on average. Of
the stacked proxies (tiny, three members, float32 and bfloat16; eager, and compiled with --compile)
and of models of a pretraining: our decoder and a llama with each attention that runs on a CPU.
Steps with and without masks take turns; printed is the median of the ratios of two neighbours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mixopt_proxies.decoder import CausalLM, Passes, StackedWeights, make_size
from torch import Tensor, nn
from torch.nn import functional

from mixopt.pretraining import DocumentMasks, ModelConfig, build_model

VOCAB, END, DOCUMENT = 512, 0, 100
CPU = torch.device("cpu")


def rows(*shape: int) -> Tensor:
    """Return random tokens with the end of a document about every hundred."""
    draws = np.random.default_rng(0)
    tokens = draws.integers(1, VOCAB, size=shape)
    tokens[draws.random(shape) < 1 / DOCUMENT] = END
    return torch.from_numpy(tokens)


def proxy(length: int, dtype: torch.dtype, *, masked: bool, compiled: bool) -> Callable[[], Any]:
    """Return a step of three stacked proxies."""
    size = make_size("tiny", sequence_length=length)
    ends = (END,) if masked else ()
    passes = Passes(size, VOCAB, device=CPU, dtype=dtype, compiled=compiled, document_ends=ends)
    weights = StackedWeights(size, VOCAB, [1, 2, 3], device=CPU, dtype=dtype)
    tokens = rows(3, size.batch, length + 1)
    return lambda: passes.gradients(weights.leaves, tokens)


def model(made: nn.Module, length: int, *, masked: bool) -> Callable[[], Any]:
    """Return a step of a model of a pretraining."""
    tokens = rows(4, length + 1)
    masks = DocumentMasks(made, [END])

    def step() -> None:
        more = masks.inputs(tokens[:, :-1]) if masked else {}
        output = made(tokens[:, :-1], **more)
        logits = output if isinstance(output, Tensor) else output.logits
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        made.zero_grad()

    return step


def llama(attention: str, length: int) -> nn.Module:
    """Return a small llama with one of its attentions."""
    options = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "attn_implementation": attention,
    }
    config = ModelConfig(name="llama", options=options)
    return build_model(config, vocab_size=VOCAB, sequence_length=length, seed=0).train()


def ratio(with_masks: Callable[[], Any], without: Callable[[], Any], rounds: int) -> float:
    """Return the median ratio of neighbouring steps."""
    found = []
    for number in range(rounds + 2):  # the first two make what is kept
        times = []
        for step in (with_masks, without) if number % 2 else (without, with_masks):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
        if number >= 2:
            found.append(times[0] / times[1] if number % 2 else times[1] / times[0])
    return round(statistics.median(found), 2)


def main() -> None:
    """Print a ratio for each kind of step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    for length in (128, 512):
        for dtype in (torch.float32, torch.bfloat16):
            both = [proxy(length, dtype, masked=m, compiled=asked.compile) for m in (True, False)]
            say(f"proxy {str(dtype).removeprefix('torch.')}", length, *both, asked.rounds)
    for length in (512, 2048):
        ours = CausalLM(VOCAB, length, layers=2, width=128, heads=4, ff=384)
        found = {"decoder": ours, **{f"llama {a}": llama(a, length) for a in ("sdpa", "eager")}}
        for name, made in found.items():
            both = [model(made, length, masked=m) for m in (True, False)]
            say(name, length, *both, asked.rounds)


def say(
    name: str, length: int, masked: Callable[[], Any], plain: Callable[[], Any], rounds: int
) -> None:
    """Print the ratio of a kind of step."""
    line = {"step": name, "length": length, "masked_over_plain": ratio(masked, plain, rounds)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
