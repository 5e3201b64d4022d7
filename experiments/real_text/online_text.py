"""Train small decoders on real text while estimators change their mixtures; several runs in step.

The runs of a job differ in their seed alone: initial weights, order of the text, and whatever the
estimator draws. They train as one stack (mixopt_proxies), each with its own sampler and driver.
Held-out text is in two parts: what estimators and designs may see, and the test text, which nothing
sees.

Shapes: K runs, B sequences, W tokens of a window, M evaluation domains.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixopt_proxies.decoder import (
    DecoderSize,
    Passes,
    StackedAdamW,
    resolve_precision,
    should_compile,
)

from mixopt.corpus import Corpus
from mixopt.loading import MixtureDataset, MixtureLoader
from mixopt.online import Driver, DriverOptions, make_estimator
from mixopt.sampling import MixtureSampler

CPU = torch.device("cpu")
SEEN, TEST = 32, 256  # held-out sequences of a domain that an estimator sees, and that test


@dataclass(frozen=True)
class Text:
    """Some domains of a corpus, and the shape of a run.

    Attributes:
        corpus: Folder of the corpus.
        domains: Which of its domains are there.
        size: The decoder; its batch is that of a step.
        steps: Optimiser steps of a run.
        outside: Domains to evaluate on in place of those trained on.
    """

    corpus: Path
    domains: tuple[str, ...]
    size: DecoderSize
    steps: int
    outside: tuple[str, ...] = ()

    @property
    def evaluations(self) -> tuple[str, ...]:
        """Domains of the held-out text."""
        return self.outside or self.domains

    @property
    def tokens(self) -> int:
        """Tokens of a run."""
        return self.steps * self.size.step_tokens


@dataclass(frozen=True)
class Job:
    """Runs that differ in their seed, or in their weights where there is no estimator.

    Attributes:
        name: The method.
        weights: Each run's mixture at its start.
        seeds: Each run's seed.
        objective: Weight of each domain's held-out loss.
        estimator: Name of an estimator; None for a static mixture.
        options: Of the estimator.
    """

    name: str
    weights: tuple[Mapping[str, float], ...]
    seeds: tuple[int, ...]
    objective: Mapping[str, float]
    estimator: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def train(text: Text, job: Job) -> list[dict[str, Any]]:
    """Train the runs of a job.

    Returns:
        For each its losses on test text (`test`) and on the text that estimators see (`seen`) by
        domain in nats per token, its last and mean weights, and what estimation cost.
    """
    torch.set_num_threads(1)
    runs = _Runs(text, job)
    start = time.process_time()
    for step in range(text.steps):
        runs.step(step)
    seconds = time.process_time() - start
    test_KM = runs.held_out(runs.test_MNW)
    seen_KM = runs.held_out(runs.seen_MNW)
    return [
        runs.result(k, test_KM[k], seen_KM[k], seconds / len(job.seeds))
        for k in range(len(job.seeds))
    ]


class _Runs:
    """A stack of decoders, their loaders, and their drivers."""

    def __init__(self, text: Text, job: Job) -> None:
        self._text, self._job = text, job
        corpus = Corpus.open(text.corpus, verify=False)
        members = len(job.seeds)
        dtype = resolve_precision("auto", CPU)
        flops = text.size.step_flops(corpus.vocab_size) * text.steps * members
        self._passes = Passes(
            text.size,
            corpus.vocab_size,
            device=CPU,
            dtype=dtype,
            compiled=should_compile("auto", CPU, flops),
        )
        self._weights = self._passes.weights(list(job.seeds))
        self._optimizer = StackedAdamW(self._weights, text.size, text.steps)
        self._inventory = {n: corpus.inventory[n] for n in text.domains}
        self._loaders = [self._loader(corpus, k) for k in range(members)]
        self.seen_MNW, self.test_MNW = self._windows(corpus)
        self._step = 0
        self._evaluated: dict[int, np.ndarray] = {}
        self._drivers = [self._driver(k) for k in range(members)] if job.estimator else []
        for driver in self._drivers:
            driver.start()
        self._streams: list[Iterator[Any]] = [iter(loader) for loader in self._loaders]
        self._drawn_KD = np.zeros((members, len(text.domains)))

    def step(self, step: int) -> None:
        """Take one optimiser step of all runs."""
        batches = [next(stream) for stream in self._streams]
        tokens = np.stack([batch["input_ids"] for batch in batches]).astype(np.int64)
        leaves = self._weights.leaves
        losses_KB, _ = self._passes.run(leaves, torch.from_numpy(tokens))
        gradients = torch.autograd.grad(losses_KB.mean(1).sum(), list(leaves.values()))
        self._optimizer.step(dict(zip(leaves, gradients, strict=True)))
        losses_KB = losses_KB.detach()
        self._step = step + 1
        rate = self._text.size.lr * self._text.size.rates(self._text.steps).rate(step)
        for k, batch in enumerate(batches):
            self._drawn_KD[k] += np.bincount(batch["domain"], minlength=len(self._text.domains))
        for k, driver in enumerate(self._drivers):
            driver.record(losses_KB[k], torch.from_numpy(batches[k]["domain"]))
            driver.step(learning_rate=rate)

    def held_out(self, rows_MNW: torch.Tensor) -> np.ndarray:
        """Return mean losses of all runs, shape (K, M)."""
        members, batch = len(self._job.seeds), self._text.size.batch
        parts = []
        for rows in torch.split(rows_MNW.flatten(0, 1), batch):
            losses_KB, _ = self._passes.evaluated(
                self._weights.leaves, rows.expand(members, -1, -1).contiguous()
            )
            parts.append(losses_KB.double())
        losses_KMN = torch.cat(parts, 1).unflatten(1, rows_MNW.shape[:2])
        return losses_KMN.mean(2).numpy()

    def result(
        self, k: int, test_M: np.ndarray, seen_M: np.ndarray, seconds: float
    ) -> dict[str, Any]:
        """Return the result of one run."""
        domains, evaluations = self._text.domains, self._text.evaluations
        drawn_D = self._drawn_KD[k] / self._drawn_KD[k].sum()
        result = {
            "method": self._job.name,
            "seed": self._job.seeds[k],
            "test": dict(zip(evaluations, test_M.tolist(), strict=True)),
            "seen": dict(zip(evaluations, seen_M.tolist(), strict=True)),
            "drawn": dict(zip(domains, drawn_D.tolist(), strict=True)),
            "seconds": seconds,
            "perturbed": 0.0,
            "evaluated": 0.0,
        }
        if self._drivers:
            driver = self._drivers[k]
            result["perturbed"] = driver.perturbed_steps / self._text.steps
            result["evaluated"] = driver.evaluated_tokens / self._text.tokens
            result["last"], result["frozen"] = dict(driver.weights), driver.frozen
        return result

    def _loader(self, corpus: Corpus, k: int) -> MixtureLoader:
        sources = {d.name: d.train for d in corpus.domains if d.name in self._text.domains}
        ordered = {name: sources[name] for name in self._text.domains}
        dataset = MixtureDataset(ordered, length=self._text.size.sequence_length + 1)
        sampler = MixtureSampler(
            dataset.sizes,
            self._job.weights[k],
            batch_size=self._text.size.batch,
            seed=self._job.seeds[k],
        )
        return MixtureLoader(dataset, sampler, prefetch=0, output="numpy")

    def _windows(self, corpus: Corpus) -> tuple[torch.Tensor, torch.Tensor]:
        """Return windows for estimators and for the test, (M, N, W) each, spread over the text."""
        length = self._text.size.sequence_length
        shards = {d.name: d.validation for d in corpus.domains}
        rows = []
        for name in self._text.evaluations:
            whole = (len(shards[name]) - 1) // length
            places = np.linspace(0, whole - 1, SEEN + TEST).astype(np.int64) * length
            rows.append(shards[name].rows(places, length + 1).astype(np.int64))
        windows = torch.from_numpy(np.stack(rows))
        is_seen = np.arange(SEEN + TEST) % ((SEEN + TEST) // SEEN) == 0
        return windows[:, is_seen], windows[:, ~is_seen]

    def _driver(self, k: int) -> Driver:
        assert self._job.estimator is not None
        options = DriverOptions(
            steps=self._text.steps,
            tokens_per_sample=self._text.size.sequence_length,
            evaluations=list(self._text.evaluations),
            objective=dict(self._job.objective),
            evaluate=self._sums(k),
            observe_every=5,
            seed=self._job.seeds[k],
        )
        estimator = make_estimator(self._job.estimator, self._job.options)
        return Driver(estimator, self._loaders[k], options)

    def _sums(self, k: int) -> Any:
        """Return the evaluation of one run; the whole stack is evaluated once a step."""

        def evaluate() -> dict[str, tuple[float, int]]:
            if self._step not in self._evaluated:
                self._evaluated = {self._step: self.held_out(self.seen_MNW)}
            tokens = SEEN * self._text.size.sequence_length
            losses_M = self._evaluated[self._step][k]
            pairs = zip(self._text.evaluations, losses_M.tolist(), strict=True)
            return {name: (loss * tokens, tokens) for name, loss in pairs}

        return evaluate


def same_weights(weights: Mapping[str, float], seeds: Sequence[int]) -> tuple[Any, ...]:
    """Return one mixture for each seed."""
    return tuple(dict(weights) for _ in seeds)
