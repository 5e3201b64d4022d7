"""How even is the load of 16 experts after 100 steps, with the default balance and without?

    python experiments/checks/expert_balance.py --out runs/balance
    python experiments/checks/expert_balance.py --out runs/balance --rate 0.001

Trains two families that return no auxiliary loss on text that the installed packages ship, two
experts a token, and prints the busiest expert's tokens over those of an even load: the mean over
the last ten steps, and over batches of held-out text when the run has ended, each by layer. The
loss is that of held-out text, the mean of the domains.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixopt.pretraining import PretrainConfig, pretrain
from mixopt.routing import ExpertRecord

BALANCES: Mapping[str, Mapping[str, Any]] = {
    "off": {"balance": "off"},
    "constant": {"bias_rate": 1e-3},  # DeepSeek-V3's
    "default": {},
}
FAMILIES = ("deepseek_v3", "glm4_moe")
BATCH, LENGTH, LAST = 32, 64, 10
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 16,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v3": {**SHAPE, **LATENT, "first_k_dense_replace": 1},
    "glm4_moe": {**SHAPE, "first_k_dense_replace": 1, "head_dim": 16},
    "dots1": {**SHAPE, "first_k_dense_replace": 1, "head_dim": 16, "n_shared_experts": 1},
}


def run_config(
    family: str, experts: Mapping[str, Any], seed: int, lr: float, asked: argparse.Namespace
) -> PretrainConfig:
    """Return the configuration of one run."""
    kinds = ("docstrings", "python_site", "cpp_headers", "javascript")
    domains = {kind: {"environment": kind} for kind in kinds}
    return PretrainConfig.model_validate(
        {
            "seed": seed,
            "corpus": {"tokenizer": asked.tokenizer, "max_bytes": 1_000_000, "domains": domains},
            "model": {"name": family, "options": dict(OPTIONS[family])},
            "training": {
                "steps": asked.steps,
                "batch": BATCH,
                "sequence_length": LENGTH,
                "lr": lr,
                "precision": "float32",
            },
            "mixture": {"anchor": "uniform"},
            "held_out": {"tokens": 16_384},
            "checkpoint": {"every": 0},
            "experts": {"every": 1, "probe": 4_096, **experts},
            "tracking": {"enabled": False},
        }
    )


def busiest(counts_E: np.ndarray[Any, Any]) -> float:
    """Return the busiest expert's tokens over those of an even load."""
    return float(counts_E.max() / counts_E.mean())


def of_steps(record: ExpertRecord) -> list[float]:
    """Return the mean over the last steps, by layer."""
    last = [window.assignments.layers for window in record.windows()[-LAST:]]
    return [
        float(np.mean([busiest(step.counts_DE.sum(0)) for step in layer]))
        for layer in zip(*last, strict=True)
    ]


def of_held_out(record: ExpertRecord) -> list[float]:
    """Return the mean over batches of the last probe, by layer; each has all domains alike."""
    found = record.last_probe()
    assert found is not None, "each run ends with a probe"
    means = []
    for layer in found[1].layers:
        whole = len(layer.counts_UE) // BATCH * BATCH
        batches = layer.counts_UE[:whole].reshape(-1, BATCH, layer.experts).sum(1)
        means.append(float(np.mean([busiest(counts_E) for counts_E in batches])))
    return means


def measure(config: PretrainConfig, out: Path) -> tuple[list[float], list[float], float]:
    """Train, and return the load of the last steps, of held-out batches, and the held-out loss."""
    result = pretrain(config, out)
    record = ExpertRecord(out / "experts")
    return of_steps(record), of_held_out(record), float(np.mean(list(result.losses.values())))


def shown(values: Sequence[float]) -> str:
    """Return numbers for a table."""
    return ", ".join(f"{value:.2f}" for value in values)


def main() -> None:
    """Train each family with and without balance, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--balances", nargs="+", choices=list(BALANCES), default=list(BALANCES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3, 3e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--tokenizer", default="bpe:2048")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| family | lr | seed | balance | last ten steps | held-out batches | loss |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for family in asked.families:
        for lr in asked.lr:
            for seed in asked.seeds:
                for name in asked.balances:
                    config = run_config(family, BALANCES[name], seed, lr, asked)
                    place = asked.out / f"{family}-{lr:g}-{seed}-{name}-{asked.steps}"
                    steps, held_out, loss = measure(config, place)
                    row = (family, f"{lr:g}", seed, name, shown(steps), shown(held_out))
                    print("| " + " | ".join(map(str, row)) + f" | {loss:.4f} |", flush=True)


if __name__ == "__main__":
    main()
