"""Train 200 steps on real text with three changes of weights; plot realised shares and the log.

    python experiments/real_text/sampler_follows_log.py CORPUS \
        --out experiments/real_text/sampler_follows_log.png

CORPUS is a folder of `<domain>/train.parquet` with a column `text`. A byte-level model of two
embeddings and a layer is trained, so that weights can follow its losses: every 50 steps the share
of each of four domains is set to its loss, made sharper. The loop is stopped after 120 steps and
goes on from its state in a new loader.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from mixopt.corpus import TokenShards, TokenWriter
from mixopt.loading import MixtureDataset, MixtureLoader
from mixopt.sampling import MixtureSampler

DOMAINS = ("literature_en", "code_python", "legal_en", "man_fr")
STEPS, EVERY, STOPPED, BATCH, LENGTH = 200, 50, 120, 32, 128


def write_tokens(corpus: Path, folder: Path) -> dict[str, TokenShards]:
    """Write two million bytes of each domain as tokens."""
    shards = {}
    for name in DOMAINS:
        texts = pq.read_table(corpus / name / "train.parquet", columns=["text"])["text"]
        content = "".join(texts.to_pylist()).encode()[:2_000_000]
        with TokenWriter(folder / name, dtype="uint16", tokenizer="bytes") as writer:
            tokens = np.frombuffer(content, np.uint8).astype(np.uint16)
            writer.write(tokens, documents=1, bytes=len(content))
        shards[name] = TokenShards.open(folder / name)
    return shards


class ByteModel(nn.Module):
    """Predict a byte from the two before it."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.before = nn.Embedding(256, 64), nn.Embedding(256, 64)
        self.out = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 256))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits of the tokens from the third on."""
        return self.out(self.last(tokens[:, 1:-1]) + self.before(tokens[:, :-2]))


def train(
    loader: MixtureLoader, model: ByteModel, seen: list[np.ndarray], losses: np.ndarray, until: int
) -> None:
    """Train up to a step; change the weights every 50 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in loader:
        tokens, domain = batch["input_ids"], batch["domain"]
        loss = nn.functional.cross_entropy(
            model(tokens).transpose(1, 2), tokens[:, 2:], reduction="none"
        ).mean(dim=1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        seen.append(domain.numpy())
        for d in range(len(DOMAINS)):
            if (domain == d).any():
                losses[d] = float(loss[domain == d].mean().detach())
        step = batch["batch"] + 1
        if step % EVERY == 0 and step < STEPS:
            weights = losses**6 / (losses**6).sum()
            held = loader.set_weights(weights.tolist())
            print(f"step {step}: {np.round(weights, 3).tolist()} from batch {held}")
        if step == until:
            return


def plot(seen: list[np.ndarray], loader: MixtureLoader, out: Path) -> None:
    """Draw shares of the last ten batches, and the log's weights as steps."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shares = np.array([np.bincount(d, minlength=len(DOMAINS)) for d in seen]) / BATCH
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    entries = loader.sampler.log
    ends = [*(entry.batch for entry in entries[1:]), STEPS]
    for d, name in enumerate(DOMAINS):
        colour = f"C{d}"
        axes.plot(np.arange(STEPS), shares[:, d], ".", ms=3, color=colour, alpha=0.6)
        for entry, end in zip(entries, ends, strict=True):
            axes.hlines(entry.mixture[name], entry.batch, end, color=colour)
        axes.plot([], [], color=colour, label=name)
    axes.axvline(STOPPED, color="0.6", ls=":", label="stopped and resumed")
    axes.set(xlabel="step", ylabel="share of the batch", title="Dots: drawn. Lines: the log.")
    figure.legend(loc="outside lower center", ncols=5, fontsize="small")
    figure.savefig(out, dpi=120)


def main() -> None:
    """Train, stop, go on, compare with the log, plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, default=Path("sampler_follows_log.png"))
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        dataset = MixtureDataset(write_tokens(options.corpus, Path(folder)), length=LENGTH)

        def new_loader() -> MixtureLoader:
            order = MixtureSampler(dataset.sizes, [0.25] * 4, batch_size=BATCH, batches=STEPS)
            return MixtureLoader(dataset, order)

        seen: list[np.ndarray] = []
        model, losses, loader = ByteModel(), np.ones(len(DOMAINS)), new_loader()
        train(loader, model, seen, losses, STOPPED)
        state = json.loads(json.dumps(loader.state_dict()))
        loader = new_loader()
        loader.load_state_dict(state)
        train(loader, model, seen, losses, STEPS)
    worst = report(seen, loader)
    plot(seen, loader, options.out)
    print(
        f"largest |drawn - integral of the weights| at a step: {worst:.2f} samples; {options.out}"
    )


def report(seen: list[np.ndarray], loader: MixtureLoader) -> float:
    """Return how far counts are from the integral of the log's weights, at most."""
    counts = np.cumsum([np.bincount(d, minlength=len(DOMAINS)) for d in seen], axis=0)
    weights = np.array([loader.sampler.mixture_at(b).array for b in range(len(seen))])
    return float(np.abs(counts - np.cumsum(weights * BATCH, axis=0)).max())


if __name__ == "__main__":
    main()
