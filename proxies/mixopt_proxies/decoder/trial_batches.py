"""The training data of a trial: sequences in the exact proportions of its mixture.

The number of sequences of each domain over the whole trial is its share rounded by largest
remainder, so the realised shares are off by less than one sequence; their order is random. A
domain's rows are its non-overlapping windows in a random order, from a random offset, then again
from another offset for the next epoch. All randomness comes from the trial's own seed. With
simulated epochs, a domain's rows are those of its pool (mixopt.loading.simulated_epochs): windows
at multiples of the sequence length.

Shapes: K members, D domains, S sequences of a trial, B sequences of a step, T tokens.
"""

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixopt.corpus import Corpus, Domain, TokenShards
from mixopt.errors import CorpusError
from mixopt.loading import Pool, make_pools
from mixopt.mixture import Phases, whole_counts
from mixopt.system import IntArray
from mixopt.trials import Training, Trial

PAIRED = ("control", "anneal")  # roles of trials with common seeds and text


class TrialBatches:
    """The batches of a group of trials, read in blocks from the token shards."""

    def __init__(
        self,
        trials: Sequence[Trial],
        corpus: Corpus,
        training: Training,
        *,
        batch: int,
        length: int,
    ) -> None:
        """Draw every trial's sequences; read no text."""
        steps = steps_of(training, length * batch)
        self._phases = None if training.phases is None else Phases(training.phases)
        self._shards = [training_shards(domain, length) for domain in corpus.domains]
        self._length = length
        self._pools = pools_of(corpus, steps * batch * length, length, training)
        self.domains = corpus.domain_names
        self._batch = batch
        self._window = length + 1
        drawn = [self._draw(trial, steps * batch) for trial in trials]
        self.domain_KS = np.stack([domains for domains, _ in drawn])
        self._start_KS = np.stack([starts for _, starts in drawn])

    def block(self, first: int, stop: int) -> NDArray[np.int32]:
        """Return the tokens of steps [first, stop), shape (steps, K, B, T + 1)."""
        part = slice(first * self._batch, stop * self._batch)
        domain_KS, start_KS = self.domain_KS[:, part], self._start_KS[:, part]
        tokens = np.empty((*domain_KS.shape, self._window), np.int32)
        for d in np.unique(domain_KS).tolist():
            in_domain = domain_KS == d
            tokens[in_domain] = self._shards[d].rows(start_KS[in_domain], self._window)
        by_step = tokens.reshape(len(tokens), stop - first, self._batch, self._window)
        return np.ascontiguousarray(by_step.swapaxes(0, 1))

    def _draw(self, trial: Trial, sequences: int) -> tuple[IntArray, IntArray]:
        domain_S = self._domains_of(trial, sequences)
        counts_D = np.bincount(domain_S, minlength=len(self.domains))
        start_S = np.empty(sequences, np.int64)
        nested = trial.role in PAIRED
        for d, count in enumerate(counts_D.tolist()):
            generator = random_generator(trial.seed, f"rows of {self.domains[d]}")
            start_S[domain_S == d] = self._starts(d, count, generator, nested=nested)
        return domain_S, start_S

    def _domains_of(self, trial: Trial, sequences: int) -> IntArray:
        """Return the domain of each sequence, phases in order and in whole steps, shape (S,)."""
        parts, ends = {"": trial.mixture}, [sequences]
        if self._phases is not None:
            parts = self._phases.split(trial.mixture)
            steps = np.cumsum(list(self._phases.values())) * sequences / self._batch
            ends = (np.rint(steps).astype(int) * self._batch).tolist()
        drawn, begin = [], 0
        for (phase, mixture), end in zip(parts.items(), ends, strict=True):
            counts_D = whole_counts(mixture.over(self.domains).array, end - begin)
            domain_S = np.repeat(np.arange(len(counts_D)), counts_D)
            random_generator(trial.seed, f"order {phase}".strip()).shuffle(domain_S)
            drawn.append(domain_S)
            begin = end
        return np.concatenate(drawn)

    def _starts(
        self, d: int, count: int, generator: np.random.Generator, *, nested: bool
    ) -> IntArray:
        pool = self._pools.get(self.domains[d])
        if pool is None:
            return window_starts(
                self._shards[d].tokens, self._window, count, generator, nested=nested
            )
        return pool.draw(count, generator) * self._length


def steps_of(training: Training, step_tokens: int) -> int:
    """Return the number of steps of a trial."""
    return max(1, math.ceil(training.tokens / step_tokens))


def pools_of(corpus: Corpus, tokens: int, length: int, training: Training) -> dict[str, Pool]:
    """Return each domain's pool for trials of `tokens` tokens."""
    counts = {d.name: (training_shards(d, length).tokens - 1) // length for d in corpus.domains}
    return make_pools(
        corpus,
        counts,
        tokens=tokens,
        target_tokens=training.target_tokens,
        length=length,
        option="proxy.options.sequence_length",
        inventory=training.inventory,
    )


def window_starts(
    tokens: int, window: int, count: int, generator: np.random.Generator, *, nested: bool
) -> IntArray:
    """Draw non-overlapping windows by epoch; `nested`: a smaller draw is a prefix of a larger."""
    epochs: list[IntArray] = [np.empty(0, np.int64)]
    missing = count
    while missing > 0:
        offset = int(generator.integers(min(window, tokens - window + 1)))
        windows = (tokens - offset) // window
        if nested:
            drawn = generator.permutation(windows)[:missing]
        else:
            drawn = generator.choice(windows, size=min(missing, windows), replace=False)
        epochs.append(offset + window * drawn.astype(np.int64))
        missing -= len(drawn)
    return np.concatenate(epochs)


def random_generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a trial's random generator for one purpose, independent of its other generators."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def training_shards(domain: Domain, length: int) -> TokenShards:
    """Return a domain's training tokens."""
    if domain.train is None:
        raise CorpusError(f"domain {domain.name!r} has no training tokens")
    return long_enough(domain.train, f"domain {domain.name!r}: training text", length)


def long_enough(shards: TokenShards, name: str, length: int) -> TokenShards:
    """Return the shards; raise if they have fewer than `length` + 1 tokens."""
    if shards.tokens < length + 1:
        raise CorpusError(
            f"{name} has {shards.tokens} tokens, but one sequence takes {length + 1}: add text,"
            f" or set proxy.options.sequence_length to {shards.tokens - 1} or less"
        )
    return shards


Span = tuple[int, int]
Read = Callable[[int, int], NDArray[np.int32]]

BUFFERS = 2  # prefetched blocks


def blocks(read: Read, spans: list[Span], device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Yield the first step of each block and its tokens as int64, prefetched by a thread."""

    def host_block(span: Span) -> Tensor:
        block = torch.from_numpy(read(*span))
        return block.pin_memory() if device.type == "cuda" else block

    with ThreadPoolExecutor(1, thread_name_prefix="tokens") as pool:
        waiting = deque(pool.submit(host_block, span) for span in spans[:BUFFERS])
        for i, (first, _) in enumerate(spans):
            block = waiting.popleft().result().to(device, non_blocking=True)
            if i + BUFFERS < len(spans):
                waiting.append(pool.submit(host_block, spans[i + BUFFERS]))
            yield first, block.long()
